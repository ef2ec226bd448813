"""DER, the Delta Energy Regularizer: exact numbers, masks, references and gradients."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from torch import nn

from energy_at.energy.pair import LogitPair
from energy_at.objectives import DER, AdversarialCrossEntropy, Objective, Weighted

# Examples by their [dE(x), dE(x, y)]: neither sign alone separates the abnormal ones.
SHIFTS = [(-0.3, -0.4), (0.3, 0.4), (-0.5, 1.2), (0.4, 0.3), (-0.4, -0.3), (0.0, 0.0)]
NORMS = [0.5, 0.5, 1.3, 0.5, 0.5, 0.0]
ABNORMAL = [False, True, True, False, True, False]


def logits(marginal, joint):
    """The two logits with ``E(x) = marginal`` and ``E(x, 0) = joint``."""
    return [-joint, math.log(math.exp(-marginal) - math.exp(-joint))]


def pair_of(shifts, **branches):
    """Pairs with these delta energies, from ``E(x) = 0`` and ``E(x, 0) = 2``."""
    clean = torch.tensor([logits(0.0, 2.0)] * len(shifts), dtype=torch.double)
    adv = torch.tensor([logits(-m, 2.0 - j) for m, j in shifts], dtype=torch.double)
    y = torch.zeros(len(shifts), dtype=torch.long)
    return LogitPair(clean.requires_grad_(), adv.requires_grad_(), y, **branches)


def random_pair(n=16, classes=5):
    clean, adv, start = (torch.randn(n, classes, dtype=torch.double) for _ in range(3))
    return LogitPair(
        clean.requires_grad_(),
        adv.requires_grad_(),
        torch.arange(n) % classes,
        start.requires_grad_(),
    )


def exactly(values):
    return torch.tensor(values, dtype=torch.double)


def loss_fell(pair, clean):
    """Whether the attack lowered the loss below that of ``clean``."""
    before, after = (F.cross_entropy(z, pair.y, reduction="none") for z in (clean, pair.adv))
    return after < before


# Values


def test_the_penalty_is_the_joint_norm_of_both_shifts():
    # Not |dE(x)| + |dE(x, y)|, which is 0.7 where the norm is 0.5.
    torch.testing.assert_close(DER("all")(pair_of(SHIFTS)), exactly(NORMS))


def test_only_abnormal_examples_are_punished_in_single_step_training():
    expected = [norm if abnormal else 0.0 for norm, abnormal in zip(NORMS, ABNORMAL, strict=True)]
    torch.testing.assert_close(DER("abnormal")(pair_of(SHIFTS)), exactly(expected))


@pytest.mark.parametrize("samples", ["all", "abnormal"])
def test_the_hinge_lets_shifts_up_to_gamma_go(samples):
    penalty = DER(samples, gamma=0.6)(pair_of(SHIFTS))
    torch.testing.assert_close(penalty, exactly([0.0, 0.0, 0.7, 0.0, 0.0, 0.0]))


def test_gamma_is_taken_off_every_shift_above_it():
    penalty = DER("all", gamma=0.2)(pair_of(SHIFTS))
    torch.testing.assert_close(penalty, exactly([0.3, 0.3, 1.1, 0.3, 0.3, 0.0]))


def test_a_shift_of_all_logits_is_punished_without_being_abnormal():
    clean = torch.randn(4, 3)
    pair = LogitPair(clean, clean + 2, torch.arange(4) % 3)
    torch.testing.assert_close(DER("all")(pair), torch.full((4,), math.sqrt(8)))


def test_the_mask_is_that_of_examples_whose_loss_fell():
    pair = random_pair(200)
    abnormal = loss_fell(pair, pair.clean)
    assert 0 < abnormal.sum() < 200
    masked, everything = DER("abnormal")(pair), DER("all")(pair)
    assert torch.equal(masked > 0, abnormal)
    assert torch.equal(masked[abnormal], everything[abnormal])


def test_the_batch_mean_counts_the_masked_examples():
    objective = Objective({"der": Weighted(DER("abnormal"), 2.0)})
    total = objective(pair_of(SHIFTS)).total
    assert total.item() == pytest.approx(2 * (0.5 + 1.3 + 0.5) / 6)


def test_from_the_start_the_clean_image_does_not_matter():
    pair = random_pair()
    unknown = LogitPair(torch.full_like(pair.clean, torch.nan), pair.adv, pair.y, pair.start)
    penalty = DER("abnormal", reference="start")(unknown)
    assert torch.equal(penalty > 0, loss_fell(pair, pair.start))
    assert not torch.equal(loss_fell(pair, pair.start), loss_fell(pair, pair.clean))
    from_start = DER("abnormal")(LogitPair(pair.start, pair.adv, pair.y))
    assert torch.equal(penalty, from_start)


def test_the_start_reference_needs_the_logits_of_the_start():
    with pytest.raises(ValueError, match="start"):
        DER("all", reference="start")(pair_of(SHIFTS))


@pytest.mark.parametrize("gamma", [-0.1, math.nan, math.inf])
def test_a_gamma_without_meaning_is_refused(gamma):
    with pytest.raises(ValueError, match="gamma"):
        DER("all", gamma=gamma)


@pytest.mark.parametrize("settings", [{"samples": "some"}, {"samples": "all", "reference": "adv"}])
def test_a_choice_without_meaning_is_refused(settings):
    with pytest.raises((ValueError, TypeCheckError), match=list(settings)[-1]):
        DER(**settings)


# Gradients with respect to the logits


@pytest.mark.parametrize("samples", ["all", "abnormal"])
@pytest.mark.parametrize("gamma", [0.0, 0.7, 50.0])
@pytest.mark.parametrize("reference", ["clean", "start"])
def test_gradients_of_the_logits_are_right(samples, gamma, reference):
    pair, der = random_pair(), DER(samples, gamma=gamma, reference=reference)
    assert bool(der(pair).any()) == (gamma < 50)
    assert torch.autograd.gradcheck(
        lambda clean, adv, start: der(LogitPair(clean, adv, pair.y, start)),
        (pair.clean, pair.adv, pair.start),
    )


def test_gradients_worked_out_by_hand():
    # d norm = (dE(x) d dE(x) + dE(x, y) d dE(x, y)) / norm, with dE(x)/df = -p, dE(x, y)/df = -e_y.
    pair = pair_of([(-0.3, -0.4)])
    DER("all")(pair).sum().backward()
    e_y = exactly([[1.0, 0.0]])
    torch.testing.assert_close(pair.clean.grad, 0.6 * pair.clean.detach().softmax(1) + 0.8 * e_y)
    torch.testing.assert_close(pair.adv.grad, -0.6 * pair.adv.detach().softmax(1) - 0.8 * e_y)


def test_normal_examples_get_no_gradient_and_the_mask_none_either():
    pair = random_pair()
    DER("abnormal")(pair).sum().backward()
    abnormal = loss_fell(pair, pair.clean)
    assert 0 < abnormal.sum() < 16
    clean, adv = (z.detach().clone().requires_grad_() for z in (pair.clean, pair.adv))
    unmasked = LogitPair(clean, adv, pair.y)
    DER("all")(unmasked).sum().backward()
    for ours, theirs in ((pair.clean, unmasked.clean), (pair.adv, unmasked.adv)):
        assert torch.equal(ours.grad[abnormal], theirs.grad[abnormal])
        assert ours.grad[~abnormal].abs().max() == 0


@pytest.mark.parametrize("reference", ["clean", "start"])
def test_detached_the_reference_gets_no_gradient_and_the_attack_its_own(reference):
    pair = random_pair()
    logits = [pair.clean, pair.adv, pair.start]
    both = DER("all", reference=reference)
    one_sided = replace(both, detach_clean=True)
    assert torch.equal(both(pair), one_sided(pair))
    clean, adv, start = torch.autograd.grad(one_sided(pair).sum(), logits, allow_unused=True)
    assert clean is None
    assert start is None
    assert torch.equal(adv, torch.autograd.grad(both(pair).sum(), pair.adv)[0])


@pytest.mark.parametrize("samples", ["all", "abnormal"])
@pytest.mark.parametrize("gamma", [0.0, 0.1])
def test_values_and_gradients_are_zero_where_nothing_moved(samples, gamma):
    clean = torch.randn(4, 3)
    clean, adv = clean.clone().requires_grad_(), clean.clone().requires_grad_()
    penalty = DER(samples, gamma=gamma)(LogitPair(clean, adv, torch.arange(4) % 3))
    penalty.sum().backward()
    for zero in (penalty, clean.grad, adv.grad):
        assert torch.equal(zero, torch.zeros_like(zero))


@pytest.mark.parametrize("samples", ["all", "abnormal"])
def test_huge_logits_keep_values_and_gradients_finite(samples):
    clean = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    adv = torch.tensor([[-1e4, 1e4], [1e4, -1e4]], requires_grad=True)
    penalty = DER(samples)(LogitPair(clean, adv, torch.tensor([0, 0])))
    penalty.sum().backward()
    # CE falls from 2e4 to 0 in the second example and rises in the first.
    expected = [2e4 if samples == "all" else 0.0, 2e4]
    torch.testing.assert_close(penalty, torch.tensor(expected))
    assert clean.grad.isfinite().all()
    assert adv.grad.isfinite().all()


# Gradients with respect to all weights, of the whole loss: CE(x*) + beta DER


BETA, N, CLASSES, STEP = 0.7, 10, 3, 1e-5
FORMS = {
    "all": DER("all"),
    "all_gamma": DER("all", gamma=0.05),
    "abnormal": DER("abnormal"),
    "abnormal_gamma": DER("abnormal", gamma=0.05),
    "abnormal_start": DER("abnormal", reference="start"),
    "all_detached": DER("all", detach_clean=True),
    "all_inactive": DER("all", gamma=100.0),
    "abnormal_inactive": DER("abnormal", gamma=100.0),
}


@pytest.fixture
def smooth():
    """A small float64 network without kinks, in training mode; clean, start and fixed images x*."""
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.BatchNorm2d(2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    ).double()
    x = torch.rand(N, 1, 4, 4, dtype=torch.double)
    start, x_adv = (x + 0.6 * torch.randn_like(x) for _ in range(2))
    return net, (x, x_adv, start), torch.arange(N) % CLASSES


def slow_loss(der, clean, adv, start, y):
    """The batch mean of CE(x*) + beta DER in plain floats, from method.md section 2."""
    total = 0.0
    reference = start if der.reference == "start" else clean
    for f, f_adv, label in zip(reference.tolist(), adv.tolist(), y.tolist(), strict=True):
        marginal, marginal_adv = (-math.log(sum(map(math.exp, z))) for z in (f, f_adv))
        loss, loss_adv = -f[label] - marginal, -f_adv[label] - marginal_adv
        shift = math.hypot(marginal - marginal_adv, -f[label] + f_adv[label])
        counts = der.samples == "all" or loss_adv < loss
        total += loss_adv + BETA * counts * max(shift - der.gamma, 0.0)
    return total / len(y)


def finite_differences(net, value):
    """Central differences of ``value(net)`` in every weight."""
    slopes = []
    with torch.no_grad():
        for parameter in net.parameters():
            flat = parameter.view(-1)
            for i in range(len(flat)):
                weight = flat[i].item()
                flat[i] = weight + STEP
                above = value(net)
                flat[i] = weight - STEP
                below = value(net)
                flat[i] = weight
                slopes.append((above - below) / (2 * STEP))
    return exactly(slopes)


@pytest.mark.parametrize("der", FORMS.values(), ids=FORMS.keys())
def test_gradients_of_the_whole_loss_in_all_weights_are_right(der, smooth):
    net, images, y = smooth
    with torch.no_grad():
        fixed = net(images[0])

    def slow(net):
        clean, adv, start = (net(x) for x in images)
        return slow_loss(der, fixed if der.detach_clean else clean, adv, start, y)

    objective = Objective({"ce": Weighted(AdversarialCrossEntropy()), "der": Weighted(der, BETA)})
    clean, adv, start = (net(x) for x in images)
    losses = objective(LogitPair(clean, adv, y, start))
    losses.total.backward()
    assert losses.total.item() == pytest.approx(slow(net), rel=1e-12)
    assert (losses.parts["der"] > 0) == (der.gamma < 100)
    gradient = torch.cat([parameter.grad.view(-1) for parameter in net.parameters()])
    expected = finite_differences(net, slow)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-8)


def test_inactive_der_trains_as_the_base_method(smooth):
    net, (x, x_adv, _), y = smooth
    base = deepcopy(net)
    pair = LogitPair(net(x), net(x_adv), y)
    terms = {
        "ce": Weighted(AdversarialCrossEntropy()),
        "der": Weighted(DER("all", gamma=100.0), BETA),
    }
    Objective(terms)(pair).total.backward()
    F.cross_entropy(base(x_adv), y).backward()
    for ours, theirs in zip(net.parameters(), base.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_step_against_its_gradient_shrinks_the_shift(smooth):
    net, (x, x_adv, _), y = smooth
    for samples in ("all", "abnormal"):
        der = DER(samples)
        before = der(LogitPair(net(x), net(x_adv), y)).mean()
        gradients = torch.autograd.grad(before, list(net.parameters()))
        moved = deepcopy(net)
        with torch.no_grad():
            for parameter, gradient in zip(moved.parameters(), gradients, strict=True):
                parameter -= 1e-3 * gradient
        after = der(LogitPair(moved(x), moved(x_adv), y)).mean()
        predicted = sum(gradient.square().sum() for gradient in gradients) * 1e-3
        assert (before - after).item() == pytest.approx(predicted.item(), rel=0.1)
