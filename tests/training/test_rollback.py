"""What a rollback changes: DER switched on, raised, or a weaker attack."""

import pytest

from energy_at.attacks import LIET, fgsm
from energy_at.attacks.threat import Linf
from energy_at.objectives import DER, AdversarialCrossEntropy, Objective, Weighted
from energy_at.training.rollback import Remedies

OBJECTIVE = Objective({"ce": Weighted(AdversarialCrossEntropy())}, skip_flat=True)
WITH_DER = Objective({**OBJECTIVE.terms, "reg": Weighted(DER("all"), 3.0)})
DER_TERM = Weighted(DER("abnormal"), 20.0)
ATTACK = fgsm(Linf(8 / 255))


@pytest.mark.parametrize(("times", "weight"), [(1, 20), (2, 40), (3, 80)])
def test_der_is_switched_on_and_then_raised(times, weight):
    objective, attack, words = Remedies("auto", DER_TERM).apply(OBJECTIVE, ATTACK, times)
    assert objective.terms == {**OBJECTIVE.terms, "der": Weighted(DER_TERM.term, weight)}
    assert (attack, words) == (ATTACK, f"DER of weight {weight}")
    assert objective.skip_flat


def test_der_that_is_there_is_raised():
    objective, _, _ = Remedies("auto", DER_TERM, 3.0).apply(WITH_DER, ATTACK, 2)
    assert objective.terms["reg"] == Weighted(DER("all"), 27.0)


def test_alpha_falls_and_the_ball_stays():
    objective, attack, _ = Remedies("alpha", DER_TERM).apply(OBJECTIVE, ATTACK, 2)
    assert objective is OBJECTIVE
    assert attack == fgsm(Linf(8 / 255), alpha=2 / 255)


def test_a_single_step_attack_of_its_own_is_weakened_too():
    _, attack, _ = Remedies("alpha", DER_TERM).apply(OBJECTIVE, LIET(Linf(8 / 255)), 1)
    assert attack == LIET(Linf(8 / 255), alpha=4 / 255)


@pytest.mark.parametrize(
    ("remedy", "objective", "use"), [("beta", OBJECTIVE, "der"), ("der", WITH_DER, "beta")]
)
def test_a_remedy_that_does_not_fit_names_the_one_that_does(remedy, objective, use):
    with pytest.raises(
        ValueError, match=f"^remedy must be {use}, as the training has .*, got '{remedy}'"
    ):
        Remedies(remedy, DER_TERM).apply(objective, ATTACK, 1)
