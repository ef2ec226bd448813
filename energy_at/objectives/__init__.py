"""Objectives: base losses and regularizers as weighted terms of one sum."""

from energy_at.objectives.aaer import AAER
from energy_at.objectives.der import DER
from energy_at.objectives.linearity import ELLE, AdaptiveELLE, GradAlign, pert_align
from energy_at.objectives.losses import (
    AdversarialCrossEntropy,
    BoostedCrossEntropy,
    CleanCrossEntropy,
    EnergyWeighted,
    JensenShannon,
    LabelSmoothing,
    LogitDistance,
    MisclassifiedKL,
    NuclearNorm,
    TradesKL,
    fits_adv_alone,
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
    "AAER",
    "DER",
    "ELLE",
    "AdaptiveELLE",
    "AdversarialCrossEntropy",
    "BoostedCrossEntropy",
    "CleanCrossEntropy",
    "EnergyWeighted",
    "GradAlign",
    "JensenShannon",
    "LabelSmoothing",
    "LogitDistance",
    "Losses",
    "MisclassifiedKL",
    "NuclearNorm",
    "Objective",
    "Probe",
    "Stateful",
    "Term",
    "TradesKL",
    "Trait",
    "Vicinity",
    "Weighted",
    "fits_adv_alone",
    "pert_align",
]
