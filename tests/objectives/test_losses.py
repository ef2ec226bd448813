"""Losses that DER is compared with, against their formulas in plain floats, image by image."""

import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from energy_at.config.build import make_terms
from energy_at.energy.pair import LogitPair
from energy_at.objectives import (
    AAER,
    DER,
    AdversarialCrossEntropy,
    BoostedCrossEntropy,
    CleanCrossEntropy,
    EnergyWeighted,
    JensenShannon,
    LabelSmoothing,
    LogitDistance,
    MisclassifiedKL,
    NuclearNorm,
    Objective,
    TradesKL,
    Trait,
)
from tests.helpers.formulas import (
    CLASSES,
    N,
    Y,
    assert_gradient,
    ce,
    gradient,
    logits,
    probabilities,
    slopes,
)
from tests.helpers.running import TINY_BN, config, prepared


@pytest.fixture
def pair():
    return LogitPair(logits(), logits(), Y, logits())


def kl(f, g):
    return sum(p * math.log(p / q) for p, q in zip(probabilities(f), probabilities(g), strict=True))


def boosted(g, y):
    p = probabilities(g)
    return -math.log(p[y]) - math.log(1 - max(p[k] for k in range(len(p)) if k != y))


def weight(f):
    energy = -math.log(sum(math.exp(z) for z in f))
    return 1 / math.log(1 + math.exp(abs(energy)))


# Of clean logits f, adversarial ones g, and clean ones that carry no gradient.


def at(f, g, y, held):
    return ce(g, y)


def trades(f, g, y, held):
    return ce(f, y) + 6 * kl(f, g)


def mart(f, g, y, held):
    return boosted(g, y) + 5 * kl(f, g) * (1 - probabilities(f)[y])


def weat_adv(f, g, y, held):
    return weight(held) * (ce(g, y) + 6 * kl(f, g))


def weat_nat(f, g, y, held):
    return weight(held) * (ce(f, y) + 6 * kl(f, g))


def liet(f, g, y, held):  # f: of the start
    p, q = probabilities(f), probabilities(g)
    m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    halves = (sum(a * math.log(a / c) for a, c in zip(r, m, strict=True)) for r in (p, q))
    return ce(g, y) + 100 * sum(halves) / 2


def fgsm_pgi(f, g, y, held):  # f: of the start
    return ce(g, y) + 10 * sum((a - b) ** 2 for a, b in zip(f, g, strict=True)) / CLASSES


def batch_mean(method, clean, adv, held):
    images = zip(clean.tolist(), adv.tolist(), Y.tolist(), held.tolist(), strict=True)
    return sum(method(*image) for image in images) / N


def nuat_mean(clean, adv):
    """By the eigenvalues of ``D^T D``."""
    change = (clean - adv).numpy()
    norm = sum(math.sqrt(max(v, 0)) for v in np.linalg.eigvalsh(change.T @ change))
    return sum(ce(f, y) for f, y in zip(clean.tolist(), Y.tolist(), strict=True)) / N + 4 * norm / N


@pytest.mark.parametrize("method", [at, trades, mart, weat_adv, weat_nat])
def test_a_loss_and_its_gradient_are_those_of_the_formula(method, pair):
    total = Objective(make_terms(config(f"loss={method.__name__}").loss.terms))(pair).total
    clean, adv = pair.clean.detach(), pair.adv.detach()
    assert total.item() == pytest.approx(batch_mean(method, clean, adv, clean), rel=1e-7)
    of_clean, of_adv = gradient(total, pair.clean, pair.adv)
    assert_gradient(of_clean, slopes(lambda z: batch_mean(method, z, adv, clean), clean))
    assert_gradient(of_adv, slopes(lambda z: batch_mean(method, clean, z, clean), adv))


@pytest.mark.parametrize("method", [liet, fgsm_pgi])
def test_a_loss_that_compares_with_the_start_is_its_formula(method, pair):
    total = Objective(make_terms(config(f"loss={method.__name__}").loss.terms))(pair).total
    start, adv = pair.start.detach(), pair.adv.detach()
    assert total.item() == pytest.approx(batch_mean(method, start, adv, start), rel=1e-7)
    of_start, of_adv, of_clean = gradient(total, pair.start, pair.adv, pair.clean)
    assert_gradient(of_start, slopes(lambda z: batch_mean(method, z, adv, z), start))
    assert_gradient(of_adv, slopes(lambda z: batch_mean(method, start, z, start), adv))
    assert not of_clean.any()


def test_the_loss_of_nuat_is_its_formula(pair):
    total = Objective(make_terms(config("loss=nuat").loss.terms))(pair).total
    clean, adv = pair.clean.detach(), pair.adv.detach()
    assert total.item() == pytest.approx(nuat_mean(clean, adv), rel=1e-7)
    of_clean, of_adv = gradient(total, pair.clean, pair.adv)
    assert_gradient(of_clean, slopes(lambda z: nuat_mean(z, adv), clean))
    assert_gradient(of_adv, slopes(lambda z: nuat_mean(clean, z), adv))


def test_an_attack_that_found_nothing_has_a_nuclear_norm_of_zero(pair):
    still = LogitPair(pair.clean, pair.clean.detach().clone().requires_grad_(), Y)
    value = NuclearNorm()(still)
    assert value.abs().max() < 1e-12
    assert gradient(value, still.adv)[0].isfinite().all()


@pytest.mark.parametrize(("loss", "weight"), [("liet", 100.0), ("nuat", 4.0), ("fgsm_pgi", 10.0)])
def test_weights_rise_over_the_whole_training(loss, weight):
    terms = make_terms(config(f"loss={loss}", "trainer.max_epochs=50").loss.terms)
    (own,) = (w for name, w in terms.items() if name in ("consistency", "nuclear_norm"))
    risen = weight if loss == "fgsm_pgi" else weight / 2
    assert (own.at(25.0), own.at(50.0)) == (pytest.approx(risen), pytest.approx(weight))


# Smoothed labels


def soft(spread="uniform", share=0.4, n=N):
    return LabelSmoothing(share, CLASSES, spread)(torch.arange(n) % CLASSES)


def test_uniformly_smoothed_labels_are_those_of_pytorch(pair):
    smoothed = replace(pair, smoothed=soft().double())
    for term, own in ((CleanCrossEntropy(), pair.clean), (AdversarialCrossEntropy(), pair.adv)):
        expected = F.cross_entropy(own, Y, label_smoothing=0.4, reduction="none")
        torch.testing.assert_close(term(smoothed), expected, rtol=1e-6, atol=0)


def test_randomly_smoothed_labels_give_their_share_to_the_other_classes():
    targets = soft("random", 0.6, 4000)
    y = torch.arange(4000) % CLASSES
    torch.testing.assert_close(targets.sum(1), torch.ones(4000))
    torch.testing.assert_close(targets[range(4000), y], torch.full((4000,), 0.4))
    others = targets[y == 0][:, 1:]
    assert (others.mean(0) - 0.2).abs().max() < 0.01
    assert others.std(0).min() > 0.05
    # the ratio of two uniforms is below 1/2 in a quarter of the draws
    assert ((others[:, 0] < others[:, 1] / 2).float().mean() - 0.25).abs() < 0.05


def test_only_cross_entropies_have_smoothed_labels(pair):
    smoothed = replace(pair, smoothed=soft().double())
    for term in (TradesKL(), DER("all"), DER("abnormal"), AAER(), BoostedCrossEntropy()):
        assert torch.equal(term(smoothed), term(pair))
    weighted = EnergyWeighted(AdversarialCrossEntropy())
    assert not torch.equal(weighted(smoothed), weighted(pair))


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [({"share": 1.0}, "share must be a finite number >= 0 and < 1"),
     ({"share": -0.1}, "share must be"), ({"classes": 1}, "classes must be"),
     ({"spread": "evenly"}, "spread must be uniform or random")],
)  # fmt: skip
def test_smoothing_out_of_range_is_refused(wrong, rule):
    with pytest.raises(ValueError, match=f"^{rule}"):
        LabelSmoothing(**{"share": 0.1, "classes": 10} | wrong)


TERMS = {
    "bce": BoostedCrossEntropy(),
    "misclassified": MisclassifiedKL(),
    "weighted_adv": EnergyWeighted(AdversarialCrossEntropy()),
    "weighted_clean": EnergyWeighted(CleanCrossEntropy()),
    "weighted_kl": EnergyWeighted(TradesKL()),
    "aaer": AAER(),
    "aaer_detached": AAER(detach_start=True),
    "js": JensenShannon(),
    "logit_distance": LogitDistance(),
    "nuclear_norm": NuclearNorm(),
}


@pytest.mark.parametrize("term", TERMS.values(), ids=TERMS.keys())
def test_traits_say_which_logits_are_read_and_which_are_trained(term, pair):
    others = {
        Trait.READS_CLEAN: LogitPair(logits(), pair.adv, Y, pair.start),
        Trait.READS_START: LogitPair(pair.clean, pair.adv, Y, logits()),
    }
    for trait, other in others.items():
        assert torch.equal(term(other), term(pair)) == (trait not in term.traits)
    of_clean, of_start = gradient(term(pair), pair.clean, pair.start)
    assert bool(of_clean.any()) == (Trait.TRAINS_CLEAN in term.traits)
    assert bool(of_start.any()) == (Trait.TRAINS_START in term.traits)


# MART


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_boosted_cross_entropy_of_confident_logits_is_right(dtype):
    sure = torch.tensor([[80.0, -80.0, -80.0]] * 2, dtype=dtype, requires_grad=True)
    value = BoostedCrossEntropy()(LogitPair(sure, sure, torch.tensor([0, 1])))
    expected = torch.tensor([0.0, 160 + 160 - math.log(2)], dtype=dtype)
    torch.testing.assert_close(value, expected)
    # Wrong, it has the gradient of 2 f_0 - f_1 - log(exp f_1 + exp f_2); right, that of 0.
    expected = torch.tensor([[0.0, 0.0, 0.0], [2.0, -1.5, -0.5]], dtype=dtype)
    torch.testing.assert_close(gradient(value, sure)[0], expected)


def test_boosted_cross_entropy_of_two_classes_is_twice_the_cross_entropy():
    pair = LogitPair(torch.zeros(6, 2), torch.randn(6, 2), torch.arange(6) % 2)
    torch.testing.assert_close(BoostedCrossEntropy()(pair), 2 * AdversarialCrossEntropy()(pair))


def test_mart_counts_an_example_by_how_wrong_the_clean_prediction_is():
    clean, adv = torch.tensor([[1e4, 0.0]] * 2), torch.tensor([[0.0, 3.0]] * 2)
    pair = LogitPair(clean, adv, torch.tensor([0, 1]))
    right, wrong = MisclassifiedKL()(pair)
    assert right == 0
    assert wrong == TradesKL()(pair)[1] > 3


def test_the_weight_of_mart_trains_the_clean_prediction(pair):
    (ours,) = gradient(MisclassifiedKL()(pair), pair.clean)
    p, divergence = pair.clean.detach().softmax(1), TradesKL()(pair)
    p_y = p[range(N), Y]
    (detached,) = gradient((1 - p_y) * divergence, pair.clean)
    of_p_y = p_y[:, None] * (F.one_hot(Y, CLASSES) - p)
    assert not torch.allclose(ours, detached)
    torch.testing.assert_close(ours - detached, -divergence.detach()[:, None] * of_p_y)


# WEAT


@pytest.mark.parametrize("energy", [0.0, 1.0, -1.0, 30.0, -30.0, 700.0, -700.0])
def test_the_weight_of_weat_falls_with_the_distance_of_the_energy_from_zero(energy):
    clean = torch.full((1, CLASSES), -energy - math.log(CLASSES), dtype=torch.double)
    pair = LogitPair(clean, torch.randn(1, CLASSES, dtype=torch.double), torch.tensor([0]))
    share = EnergyWeighted(TradesKL())(pair) / TradesKL()(pair)
    assert share.item() == pytest.approx(1 / math.log(1 + math.exp(abs(energy))), rel=1e-7)


@pytest.mark.parametrize("inner", [CleanCrossEntropy(), AdversarialCrossEntropy(), TradesKL()])
def test_the_weight_of_weat_carries_no_gradient(inner, pair):
    ours = gradient(EnergyWeighted(inner)(pair), pair.clean, pair.adv)
    weights = torch.tensor([[weight(f)] for f in pair.clean.tolist()], dtype=torch.double)
    for a, b in zip(ours, gradient(inner(pair), pair.clean, pair.adv), strict=True):
        torch.testing.assert_close(a, weights * b)


# TRADES


def test_trades_of_beta_zero_trains_on_clean_images_alone(tmp_path, batch):
    x, y = batch
    module = prepared(tmp_path, *TINY_BN, "attack=trades", "loss=trades", "loss.beta=0").module
    clean = deepcopy(module.net)
    module.training_step(batch, 0)["loss"].backward()
    F.cross_entropy(clean(x), y).backward()
    for ours, theirs in zip(module.net.parameters(), clean.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_cross_entropies_look_at_their_own_logits(pair):
    for term, own in ((CleanCrossEntropy(), pair.clean), (AdversarialCrossEntropy(), pair.adv)):
        p = own.exp() / own.exp().sum(1, keepdim=True)
        torch.testing.assert_close(term(pair), -p[range(N), pair.y].log())


def test_trades_divergence_is_the_sum_over_classes(pair):
    p, q = pair.clean.softmax(1), pair.adv.softmax(1)
    torch.testing.assert_close(TradesKL()(pair), (p * (p / q).log()).sum(1))


def test_trades_divergence_worked_out_by_hand():
    clean, adv = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    value = TradesKL()(LogitPair(clean, adv, torch.tensor([0])))
    torch.testing.assert_close(value, torch.tensor([4 / 3]).log() / 2)


def test_trades_divergence_of_certain_predictions_is_finite():
    clean, adv = torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]], requires_grad=True)
    value = TradesKL()(LogitPair(clean, adv, torch.tensor([0])))
    torch.testing.assert_close(value, torch.tensor([1e4]))
    (grad,) = torch.autograd.grad(value.sum(), adv)
    torch.testing.assert_close(grad, torch.tensor([[-1.0, 1.0]]))
