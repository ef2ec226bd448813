"""From logits to energies, their change under attack, and abnormal examples."""

from energy_at.energy.energies import (
    delta_joint,
    delta_marginal,
    is_abnormal,
    joint_energy,
    marginal_energy,
    shift_norm,
)
from energy_at.energy.pair import LogitPair

__all__ = [
    "LogitPair",
    "delta_joint",
    "delta_marginal",
    "is_abnormal",
    "joint_energy",
    "marginal_energy",
    "shift_norm",
]
