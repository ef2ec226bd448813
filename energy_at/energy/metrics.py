"""Metrics of a batch of logit pairs: accuracies, energies, delta energies, abnormal share."""

import torch

from energy_at.core.types import Scalar
from energy_at.energy.energies import (
    delta_joint,
    delta_marginal,
    is_abnormal,
    joint_energy,
    marginal_energy,
    shift_norm,
)
from energy_at.energy.pair import LogitPair

SHIFT_P99 = "delta_energy/shift_p99"
DELTA_ENERGIES = (
    *("delta_energy/marginal", "delta_energy/joint", "delta_energy/shift_norm"),
    *(SHIFT_P99, "aae_share"),
)


def accuracies(pair: LogitPair) -> dict[str, Scalar]:
    """Shares of clean and of adversarial images that are classified correctly."""
    return {
        "acc/clean": (pair.clean.argmax(1) == pair.y).float().mean(),
        "acc/adv": (pair.adv.argmax(1) == pair.y).float().mean(),
    }


def cross_entropies(pair: LogitPair) -> dict[str, Scalar]:
    """Batch means (nats) of ``E(x, y) - E(x)``, for clean and for adversarial images."""
    clean = joint_energy(pair.clean, pair.y) - marginal_energy(pair.clean)
    adv = joint_energy(pair.adv, pair.y) - marginal_energy(pair.adv)
    return {"ce/clean": clean.mean(), "ce/adv": adv.mean()}


def delta_energies(pair: LogitPair) -> dict[str, Scalar]:
    """Batch means of ``dE(x)``, ``dE(x, y)`` and the shift norm (nats), and the share of AAEs."""
    shift = shift_norm(pair)
    values = (
        *(delta_marginal(pair).mean(), delta_joint(pair).mean(), shift.mean()),
        *(torch.quantile(shift.float(), 0.99), is_abnormal(pair).float().mean()),
    )
    return dict(zip(DELTA_ENERGIES, values, strict=True))


def energies(pair: LogitPair) -> dict[str, Scalar]:
    """Batch means of the energies (nats), and the root mean square of the clean logits.

    A constant added to all logits shifts every energy, so the scale is logged with them.
    """
    return {
        "energy/marginal_clean": marginal_energy(pair.clean).mean(),
        "energy/marginal_adv": marginal_energy(pair.adv).mean(),
        "energy/joint_clean": joint_energy(pair.clean, pair.y).mean(),
        "energy/joint_adv": joint_energy(pair.adv, pair.y).mean(),
        "logit_scale": pair.clean.square().mean().sqrt(),
    }


def pair_metrics(pair: LogitPair) -> dict[str, Scalar]:
    """Everything that is logged of a batch of pairs, as scalars on its device."""
    return accuracies(pair) | delta_energies(pair) | energies(pair)
