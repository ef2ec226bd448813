"""Attacks: one gradient loop, its starts and goals, and ways to combine attacks."""

from energy_at.attacks.autoattack import LibraryAttack
from energy_at.attacks.base import Attack, AttackOptions, AttackResult, NoAttack
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
from energy_at.attacks.threat import L2, Ball, Linf

__all__ = [
    "L2",
    "Attack",
    "AttackOptions",
    "AttackResult",
    "Ball",
    "GradientAttack",
    "LibraryAttack",
    "Linf",
    "NoAttack",
    "Restarts",
    "WorstCase",
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
