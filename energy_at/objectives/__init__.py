"""Objectives: base losses and regularizers as weighted terms of one sum."""

from energy_at.objectives.base import Losses, Objective, Term, Trait, Weighted
from energy_at.objectives.losses import AdversarialCrossEntropy, CleanCrossEntropy, TradesKL
from energy_at.objectives.regularizers import DeltaEnergy

__all__ = [
    "AdversarialCrossEntropy",
    "CleanCrossEntropy",
    "DeltaEnergy",
    "Losses",
    "Objective",
    "Term",
    "TradesKL",
    "Trait",
    "Weighted",
]
