"""Objectives: base losses and regularizers as weighted terms of one sum."""

from energy_at.objectives.der import AbnormalVariation, DeltaEnergy
from energy_at.objectives.linearity import AdaptiveLinearity, GradAlign, Linearity
from energy_at.objectives.losses import (
    AdversarialCrossEntropy,
    BoostedCrossEntropy,
    CleanCrossEntropy,
    EnergyWeighted,
    MisclassifiedKL,
    TradesKL,
)
from energy_at.objectives.objective import (
    Losses,
    Objective,
    Probe,
    Stateful,
    Term,
    Trait,
    Vicinity,
    Weighted,
)

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
