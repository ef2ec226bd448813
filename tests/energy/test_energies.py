import math

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError

from energy_at.energy.energies import (
    delta_joint,
    delta_marginal,
    is_abnormal,
    joint_energy,
    marginal_energy,
    shift_norm,
)
from energy_at.energy.pair import LogitPair

# exp of the first row sums to 8, of the second to 5.
LOGITS = torch.tensor([[1.0, 2.0, 5.0], [1.0, 1.0, 3.0]]).log()
Y = torch.tensor([2, 0])


@pytest.fixture
def pair():
    return LogitPair(3 * torch.randn(64, 5), 3 * torch.randn(64, 5), torch.arange(64) % 5)


def cross_entropies(pair):
    return [F.cross_entropy(logits, pair.y, reduction="none") for logits in (pair.clean, pair.adv)]


def test_energies_worked_out_by_hand():
    marginal = torch.tensor([-math.log(8), -math.log(5)])
    joint = torch.tensor([-math.log(5), 0.0])
    torch.testing.assert_close(marginal_energy(LOGITS), marginal)
    torch.testing.assert_close(joint_energy(LOGITS, Y), joint)


def test_delta_energies_worked_out_by_hand():
    # E(x) = -ln 8, E(x*) = -ln 4, E(x, y) = -ln 5, E(x*, y) = -ln 2.
    pair = LogitPair(LOGITS[:1], torch.tensor([[1.0, 1.0, 2.0]]).log(), Y[:1])
    marginal, joint = -math.log(2), -math.log(2.5)
    assert delta_marginal(pair).item() == pytest.approx(marginal, abs=1e-6)
    assert delta_joint(pair).item() == pytest.approx(joint, abs=1e-6)
    assert shift_norm(pair).item() == pytest.approx(math.hypot(marginal, joint), abs=1e-6)
    assert not is_abnormal(pair).item()  # the loss rose from ln(8/5) to ln 2


def test_cross_entropy_is_joint_minus_marginal(pair):
    expected = F.cross_entropy(pair.clean, pair.y, reduction="none")
    energies = joint_energy(pair.clean, pair.y) - marginal_energy(pair.clean)
    torch.testing.assert_close(energies, expected)


def test_rise_of_the_loss_is_marginal_minus_joint_delta(pair):
    before, after = cross_entropies(pair)
    torch.testing.assert_close(after - before, delta_marginal(pair) - delta_joint(pair))


def test_abnormal_examples_are_those_whose_loss_fell(pair):
    before, after = cross_entropies(pair)
    assert torch.equal(is_abnormal(pair), after < before)
    assert 0 < is_abnormal(pair).sum() < 64


def test_swapping_clean_and_adversarial_flips_the_shift(pair):
    swapped = LogitPair(pair.adv, pair.clean, pair.y)
    assert torch.equal(delta_marginal(swapped), -delta_marginal(pair))
    assert torch.equal(delta_joint(swapped), -delta_joint(pair))
    assert torch.equal(shift_norm(swapped), shift_norm(pair))
    assert torch.equal(is_abnormal(swapped), ~is_abnormal(pair))


def test_a_constant_added_to_the_logits_lowers_every_energy_by_it(pair):
    shifted = pair.clean + 7
    torch.testing.assert_close(marginal_energy(shifted), marginal_energy(pair.clean) - 7)
    torch.testing.assert_close(joint_energy(shifted, pair.y), joint_energy(pair.clean, pair.y) - 7)


def test_a_constant_added_on_both_sides_changes_no_delta(pair):
    shifted = LogitPair(pair.clean + 7, pair.adv + 7, pair.y)
    torch.testing.assert_close(delta_marginal(shifted), delta_marginal(pair), atol=1e-5, rtol=0)
    torch.testing.assert_close(delta_joint(shifted), delta_joint(pair), atol=1e-5, rtol=0)


def test_a_constant_added_on_one_side_is_the_whole_shift():
    logits, y = torch.randn(3, 4), torch.tensor([0, 1, 3])
    pair = LogitPair(logits, logits + 2, y)
    torch.testing.assert_close(delta_marginal(pair), torch.full((3,), 2.0))
    torch.testing.assert_close(delta_joint(pair), torch.full((3,), 2.0))
    torch.testing.assert_close(shift_norm(pair), torch.full((3,), math.sqrt(8)))


def test_trades_divergence_in_energies(pair):
    p = pair.clean.softmax(1)
    kl = (p * (p.log() - pair.adv.softmax(1).log())).sum(1)
    rise = torch.zeros(64)
    for k in range(5):
        label = torch.full_like(pair.y, k)
        rise += p[:, k] * (joint_energy(pair.adv, label) - joint_energy(pair.clean, label))
    torch.testing.assert_close(rise + delta_marginal(pair), kl, atol=1e-5, rtol=1e-5)


def test_nothing_moved_no_shift():
    pair = LogitPair(LOGITS, LOGITS, Y)
    assert shift_norm(pair).abs().max() == 0
    assert not is_abnormal(pair).any()


def test_gradient_of_the_shift_norm_at_zero_is_zero():
    clean, adv = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    shift_norm(LogitPair(clean, adv, Y)).sum().backward()
    assert torch.equal(clean.grad, torch.zeros_like(LOGITS))
    assert torch.equal(adv.grad, torch.zeros_like(LOGITS))


def test_gradient_of_the_marginal_energy_is_minus_the_softmax(pair):
    logits = pair.clean.clone().requires_grad_()
    marginal_energy(logits).sum().backward()
    torch.testing.assert_close(logits.grad, -pair.clean.softmax(1))


def test_huge_logits_stay_finite():
    clean = torch.tensor([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4]], requires_grad=True)
    adv = torch.tensor([[-1e4, 1e4, 0.0], [1e4, 1e4, 1e4]], requires_grad=True)
    pair = LogitPair(clean, adv, torch.tensor([0, 1]))
    torch.testing.assert_close(delta_marginal(pair), torch.tensor([0.0, 2e4]))
    torch.testing.assert_close(delta_joint(pair), torch.tensor([-2e4, 2e4]))
    shift_norm(pair).sum().backward()
    assert clean.grad.isfinite().all()
    assert adv.grad.isfinite().all()


def test_small_shifts_of_large_energies_keep_their_sign():
    clean = torch.tensor([[1000.0, 999.0]])
    pair = LogitPair(clean, clean + torch.tensor([[0.0, 0.5]]), torch.tensor([0]))
    assert delta_joint(pair).item() == 0
    assert delta_marginal(pair).item() > 0
    assert not is_abnormal(pair).item()


def test_labels_as_a_column_are_refused():
    with pytest.raises(TypeCheckError):
        joint_energy(LOGITS, Y[:, None])
    with pytest.raises(TypeCheckError):
        LogitPair(LOGITS, LOGITS, Y[:, None])


def test_labels_as_probabilities_are_refused():
    with pytest.raises(TypeCheckError):
        joint_energy(LOGITS, Y.float())
