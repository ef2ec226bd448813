"""Shapes and types of every call into the package are checked while tests run."""

import pytest
import torch
from jaxtyping import TypeCheckError

from energy_at.core.rules import integer
from energy_at.core.types import labels_of
from energy_at.energy import joint_energy


def test_sizes_that_disagree_are_refused():
    with pytest.raises(TypeCheckError):
        joint_energy(torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64))


def test_a_call_without_tensors_is_checked_too():
    with pytest.raises(TypeError, match="integer"):
        integer("1")


def test_what_torch_refuses_of_targets_is_said_in_its_words():
    with pytest.raises(RuntimeError, match="of torch"), labels_of(torch.full((2, 3), torch.nan), 3):
        raise RuntimeError("of torch")
