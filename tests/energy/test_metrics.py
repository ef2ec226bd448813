import math

import pytest
import torch
import torch.nn.functional as F

from energy_at.energy.metrics import (
    accuracies,
    cross_entropies,
    delta_energies,
    energies,
    pair_metrics,
)
from energy_at.energy.pair import LogitPair

# exp(clean) and exp(adv) of each example; their sums are 8, 5 and 4, 5.
CLEAN = torch.tensor([[1.0, 2.0, 5.0], [1.0, 1.0, 3.0]]).log()
ADV = torch.tensor([[2.0, 1.0, 1.0], [2.0, 2.0, 1.0]]).log()
PAIR = LogitPair(CLEAN, ADV, torch.tensor([2, 0]))
LN2, LN5 = math.log(2), math.log(5)


@pytest.fixture
def pair():
    return LogitPair(3 * torch.randn(200, 5), 3 * torch.randn(200, 5), torch.arange(200) % 5)


def as_floats(metrics):
    return {name: value.item() for name, value in metrics.items()}


def test_accuracies_worked_out_by_hand():
    # Clean: classes 2 and 2; adversarial: classes 0 and 1.
    pair = LogitPair(CLEAN, ADV - torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), PAIR.y)
    assert as_floats(accuracies(pair)) == {"acc/clean": 0.5, "acc/adv": 0.0}
    pair = LogitPair(pair.clean, pair.adv, torch.tensor([2, 2]))
    assert as_floats(accuracies(pair)) == {"acc/clean": 1.0, "acc/adv": 0.0}
    pair = LogitPair(pair.clean, pair.adv, torch.tensor([0, 2]))
    assert as_floats(accuracies(pair)) == {"acc/clean": 0.5, "acc/adv": 0.5}


def test_delta_energies_worked_out_by_hand():
    # dE(x) = -ln 8 + ln 4 = -ln 2 and 0; dE(x, y) = -ln 5 and -ln 1 + ln 2 = ln 2.
    expected = {
        "delta_energy/marginal": -LN2 / 2,
        "delta_energy/joint": (LN2 - LN5) / 2,
        "delta_energy/shift_norm": (math.hypot(LN2, LN5) + LN2) / 2,
        "delta_energy/shift_p99": LN2 + 0.99 * (math.hypot(LN2, LN5) - LN2),
        "aae_share": 0.5,
    }
    assert as_floats(delta_energies(PAIR)) == pytest.approx(expected, abs=1e-6)


def test_energies_worked_out_by_hand():
    expected = {
        "energy/marginal_clean": -(math.log(8) + LN5) / 2,
        "energy/marginal_adv": -(math.log(4) + LN5) / 2,
        "energy/joint_clean": -LN5 / 2,
        "energy/joint_adv": -LN2 / 2,
        "logit_scale": math.sqrt((LN2**2 + LN5**2 + math.log(3) ** 2) / 6),
    }
    assert as_floats(energies(PAIR)) == pytest.approx(expected, abs=1e-6)


def test_cross_entropies_are_those_of_torch(pair):
    for name, logits in (("clean", pair.clean), ("adv", pair.adv)):
        expected = F.cross_entropy(logits, pair.y)
        torch.testing.assert_close(cross_entropies(pair)[f"ce/{name}"], expected)


def test_what_is_logged_adds_up(pair):
    logged = as_floats(pair_metrics(pair))
    for energy in ("marginal", "joint"):
        difference = logged[f"energy/{energy}_clean"] - logged[f"energy/{energy}_adv"]
        assert logged[f"delta_energy/{energy}"] == pytest.approx(difference, abs=1e-5)
    rise = F.cross_entropy(pair.adv, pair.y) - F.cross_entropy(pair.clean, pair.y)
    difference = logged["delta_energy/marginal"] - logged["delta_energy/joint"]
    assert difference == pytest.approx(rise.item(), abs=1e-5)


def test_the_share_of_abnormal_examples_is_that_of_losses_that_fell(pair):
    before, after = (F.cross_entropy(z, pair.y, reduction="none") for z in (pair.clean, pair.adv))
    fell = (after < before).float().mean().item()
    assert 0.2 < fell < 0.8
    assert delta_energies(pair)["aae_share"].item() == pytest.approx(fell)


def test_a_constant_shift_of_all_logits_changes_energies_only(pair):
    before, after = (
        pair_metrics(pair),
        pair_metrics(LogitPair(pair.clean + 7, pair.adv + 7, pair.y)),
    )
    for name, value in before.items():
        shift = -7.0 if name.startswith("energy/") else 0.0
        if name != "logit_scale":
            assert after[name].item() == pytest.approx(value.item() + shift, abs=1e-4), name


def test_one_outlier_in_a_thousand_does_not_move_the_p99():
    clean = torch.zeros(1000, 2)
    adv = torch.ones(1000, 2)
    adv[0] = 1e4
    metrics = delta_energies(LogitPair(clean, adv, torch.zeros(1000, dtype=torch.long)))
    assert metrics["delta_energy/shift_p99"].item() == pytest.approx(math.sqrt(2))
    assert metrics["delta_energy/shift_norm"].item() > 10


def test_metrics_are_scalars_without_graph_when_the_pair_has_none(pair):
    for name, value in pair_metrics(pair).items():
        assert value.shape == (), name
        assert not value.requires_grad, name
        assert value.isfinite(), name
