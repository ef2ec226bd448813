"""A classifier as a generator: starts, Langevin dynamics, and where each sample stops."""

from energy_at.sampling.chains import Chains, Stop
from energy_at.sampling.guidance import ClassEnergy, Guidance, Unguided
from energy_at.sampling.langevin import ENERGIES, Langevin, generate
from energy_at.sampling.pca import Principal, principal
from energy_at.sampling.starts import ClassGaussian, ClassPCA, Fitted, LocalPCA, Start, Uniform
from energy_at.sampling.training_images import TrainingImages, embedded

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
    "Principal",
    "Start",
    "Stop",
    "TrainingImages",
    "Unguided",
    "Uniform",
    "embedded",
    "generate",
    "principal",
]
