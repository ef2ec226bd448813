"""Logits of clean and adversarial images, seen from the start and without a graph."""

import pytest
import torch
from jaxtyping import TypeCheckError

from energy_at.energy.pair import LogitPair

# exp of the first row sums to 8, of the second to 5.
LOGITS = torch.tensor([[1.0, 2.0, 5.0], [1.0, 1.0, 3.0]]).log()
Y = torch.tensor([2, 0])


@pytest.mark.parametrize("adv", [LOGITS[:1], LOGITS[:, :2]], ids=["fewer images", "fewer classes"])
def test_a_pair_of_different_shapes_is_refused(adv):
    with pytest.raises(TypeCheckError):
        LogitPair(LOGITS, adv, Y)


def test_a_detached_pair_has_the_values_and_no_graph():
    clean, adv, start = (LOGITS.clone().requires_grad_() for _ in range(3))
    detached = LogitPair(clean, 2 * adv, Y, 3 * start).detach()
    assert torch.equal(detached.clean, LOGITS)
    assert torch.equal(detached.adv, 2 * LOGITS)
    assert torch.equal(detached.start, 3 * LOGITS)
    assert not any(t.requires_grad for t in (detached.clean, detached.adv, detached.start))


def test_seen_from_the_start_the_start_stands_for_the_clean_image():
    seen = LogitPair(LOGITS, 2 * LOGITS, Y, 3 * LOGITS).from_start()
    assert torch.equal(seen.clean, 3 * LOGITS)
    assert torch.equal(seen.adv, 2 * LOGITS)


def test_a_pair_without_start_logits_cannot_be_seen_from_there():
    with pytest.raises(ValueError, match="start"):
        LogitPair(LOGITS, LOGITS, Y).from_start()
