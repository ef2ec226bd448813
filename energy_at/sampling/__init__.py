"""A robust classifier as a generator: starts, Langevin dynamics, guidance, scores."""

from energy_at.sampling.langevin import Chains, ClassEnergy, Guidance, Langevin, Unguided, generate
from energy_at.sampling.pipeline import sample_command
from energy_at.sampling.starts import ClassGaussian, ClassPCA, LocalPCA, Start, Uniform
from energy_at.sampling.stored_starts import OtherImages, Picture
from energy_at.sampling.training_images import TrainingImages

__all__ = [
    "Chains",
    "ClassEnergy",
    "ClassGaussian",
    "ClassPCA",
    "Guidance",
    "Langevin",
    "LocalPCA",
    "OtherImages",
    "Picture",
    "Start",
    "TrainingImages",
    "Unguided",
    "Uniform",
    "generate",
    "sample_command",
]
