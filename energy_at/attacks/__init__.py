"""Attacks: one gradient loop, its starts and goals, and ways to combine attacks."""

from energy_at.attacks.autoattack import LibraryAttack
from energy_at.attacks.base import Attack, AttackOptions, AttackResult, NoAttack, Place
from energy_at.attacks.compose import Restarts, WorstCase, with_alpha
from energy_at.attacks.custom import CustomAttack
from energy_at.attacks.fast import FGSMPGI, LIET, SORA, NuAT
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
    "FGSMPGI",
    "L2",
    "LIET",
    "SORA",
    "Attack",
    "AttackOptions",
    "AttackResult",
    "Ball",
    "CustomAttack",
    "GradientAttack",
    "LibraryAttack",
    "Linf",
    "NoAttack",
    "NuAT",
    "Place",
    "Restarts",
    "WorstCase",
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
