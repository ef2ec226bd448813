"""Attacks: one gradient loop, its starts and goals, and ways to combine attacks."""

from energy_at.attacks.autoattack import LibraryAttack, autoattack
from energy_at.attacks.base import Attack, AttackResult
from energy_at.attacks.compose import Restarts, WorstCase, climbs_loss, with_alpha
from energy_at.attacks.gradient import GradientAttack
from energy_at.attacks.registry import (
    cw,
    fgsm,
    n_fgsm,
    pgd,
    restarted_pgd,
    rs_fgsm,
    targeted,
    trades,
)
from energy_at.attacks.unattacked import NoAttack

__all__ = [
    "Attack",
    "AttackResult",
    "GradientAttack",
    "LibraryAttack",
    "NoAttack",
    "Restarts",
    "WorstCase",
    "autoattack",
    "climbs_loss",
    "cw",
    "fgsm",
    "n_fgsm",
    "pgd",
    "restarted_pgd",
    "rs_fgsm",
    "targeted",
    "trades",
    "with_alpha",
]
