"""A robust classifier as a generator: starts, Langevin dynamics, guidance, scores."""

from energy_at.sampling.langevin import (
    ENERGIES,
    Chains,
    ClassEnergy,
    Guidance,
    Langevin,
    Stop,
    Unguided,
    generate,
)
from energy_at.sampling.output import FILES
from energy_at.sampling.pipeline import sample, sample_command
from energy_at.sampling.prepare import SamplingPlan
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
    "FILES",
    "Chains",
    "ClassEnergy",
    "ClassGaussian",
    "ClassPCA",
    "Fitted",
    "Guidance",
    "Langevin",
    "LocalPCA",
    "PrincipalComponents",
    "SamplingPlan",
    "Start",
    "Stop",
    "TrainingImages",
    "Unguided",
    "Uniform",
    "embed",
    "find_components",
    "generate",
    "sample",
    "sample_command",
]
