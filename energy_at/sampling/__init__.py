"""A robust classifier as a generator: starts, Langevin dynamics and guidance."""

from energy_at.sampling.guidance import ClassEnergy, Guidance, Unguided
from energy_at.sampling.langevin import ENERGIES, Chains, Langevin, Stop, generate
from energy_at.sampling.starts import (
    ClassGaussian,
    ClassPCA,
    Fitted,
    LocalPCA,
    PrincipalComponents,
    Start,
    Uniform,
    find_components,
)
from energy_at.sampling.training_images import TrainingImages, embed

__all__ = [
    "ENERGIES",
    "Chains",
    "ClassEnergy",
    "ClassGaussian",
    "ClassPCA",
    "Fitted",
    "Guidance",
    "Langevin",
    "LocalPCA",
    "PrincipalComponents",
    "Start",
    "Stop",
    "TrainingImages",
    "Unguided",
    "Uniform",
    "embed",
    "find_components",
    "generate",
]
