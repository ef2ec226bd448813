"""Objectives: base losses and regularizers as weighted terms of one sum."""

from energy_at.objectives.base import (
    Losses,
    Objective,
    Probe,
    Stateful,
    Term,
    Trait,
    Vicinity,
    Weighted,
)
from energy_at.objectives.losses import (
    AdversarialCrossEntropy,
    BoostedCrossEntropy,
    CleanCrossEntropy,
    EnergyWeighted,
    MisclassifiedKL,
    TradesKL,
)
from energy_at.objectives.probes import AdaptiveLinearity, GradAlign, Linearity
from energy_at.objectives.regularizers import AbnormalVariation, DeltaEnergy

__all__ = [
    "AbnormalVariation",
    "AdaptiveLinearity",
    "AdversarialCrossEntropy",
    "BoostedCrossEntropy",
    "CleanCrossEntropy",
    "DeltaEnergy",
    "EnergyWeighted",
    "GradAlign",
    "Linearity",
    "Losses",
    "MisclassifiedKL",
    "Objective",
    "Probe",
    "Stateful",
    "Term",
    "TradesKL",
    "Trait",
    "Vicinity",
    "Weighted",
]
