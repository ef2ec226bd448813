"""AAER against its formula in plain floats, image by image."""

import math

import pytest
import torch
import torch.nn.functional as F

from energy_at.energy.pair import LogitPair
from energy_at.objectives import AAER
from tests.helpers.formulas import CLASSES, Y, assert_gradient, ce, gradient, logits, slopes


@pytest.fixture
def pair():
    return LogitPair(logits(), logits(), Y, logits())


def aaer(start, adv, y, ce_weight, logits_weight, level=None):
    """The batch mean, and ``V_NAE``, which a ``level`` given takes the place of."""
    abnormal, normal, drops = [], [], []
    for f, g, label in zip(start.tolist(), adv.tolist(), y.tolist(), strict=True):
        variation = sum((a - b) ** 2 for a, b in zip(f, g, strict=True))
        if ce(g, label) < ce(f, label):
            abnormal.append(variation)
            drops.append(ce(f, label) - ce(g, label))
        else:
            normal.append(variation)
    if normal and level is None:
        level = sum(normal) / len(normal)
    if not abnormal:
        return 0.0, level
    count = len(abnormal)
    excess = max(sum(abnormal) / count - level, 0) if normal else 0
    mean = ce_weight * sum(drops) / count + logits_weight * excess
    return count / len(y) * mean, level


def fell(pair):
    """Whether each adversarial example is abnormal."""
    return torch.tensor(
        [
            ce(g, y) < ce(f, y)
            for f, g, y in zip(pair.start.tolist(), pair.adv.tolist(), Y.tolist(), strict=True)
        ]
    )


def moved(pair, chosen, by=3.0):
    """The pair with all logits of some adversarial examples raised, which leaves their loss."""
    adv = (pair.adv.detach() + by * chosen[:, None]).requires_grad_()
    return LogitPair(pair.clean, adv, Y, pair.start)


@pytest.mark.parametrize("detach_start", [False, True])
@pytest.mark.parametrize("excess", [True, False], ids=["above", "below"])
def test_aaer_and_its_gradient_are_those_of_the_formula(detach_start, excess, pair):
    pair = moved(pair, fell(pair) if excess else ~fell(pair))
    value = AAER(2.5, 1.5, detach_start)(pair).mean()
    start, adv = pair.start.detach(), pair.adv.detach()
    expected, level = aaer(start, adv, Y, 2.5, 1.5)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    assert (aaer(start, adv, Y, 0, 1)[0] > 0) == excess
    of_start, of_adv = gradient(value, pair.start, pair.adv)
    assert_gradient(of_adv, slopes(lambda z: aaer(start, z, Y, 2.5, 1.5, level)[0], adv))
    if detach_start:
        assert not of_start.any()
    else:
        assert_gradient(of_start, slopes(lambda z: aaer(z, adv, Y, 2.5, 1.5, level)[0], start))


def test_the_variation_of_normal_examples_carries_no_gradient(pair):
    abnormal = fell(pair)
    pair = moved(pair, abnormal)
    for grad in gradient(AAER()(pair), pair.start, pair.adv):
        assert torch.equal(grad.any(1), abnormal)


def test_the_drop_of_the_loss_is_trained(pair):
    abnormal = fell(pair)
    (ours,) = gradient(AAER(ce=2.5, logits=0.0)(pair), pair.adv)
    (of_loss,) = gradient(F.cross_entropy(pair.adv[abnormal], Y[abnormal]) * 2.5, pair.adv)
    torch.testing.assert_close(ours, -of_loss * abnormal.sum())
    assert ours.any()


def test_a_batch_without_abnormal_examples_has_no_aaer_and_no_gradient(pair):
    lower = (pair.start.detach() - F.one_hot(Y, CLASSES)).requires_grad_()
    value = AAER()(LogitPair(pair.clean, lower, Y, pair.start))
    assert torch.equal(value, torch.zeros_like(value))
    for grad in gradient(value, pair.start, lower):
        assert torch.equal(grad, torch.zeros_like(grad))


def test_a_batch_of_abnormal_examples_is_only_punished_for_the_drop(pair):
    higher = (pair.start.detach() + F.one_hot(Y, CLASSES)).requires_grad_()
    pair = LogitPair(pair.clean, higher, Y, pair.start)
    value = AAER()(pair).mean()
    expected = 2.5 * (F.cross_entropy(pair.start, Y) - F.cross_entropy(higher, Y))
    torch.testing.assert_close(value, expected)
    grads = gradient(value, pair.start, higher)
    for ours, theirs in zip(grads, gradient(expected, pair.start, higher), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["ce", "logits"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_weight_of_aaer_that_makes_no_penalty_is_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        AAER(**{name: value})
