"""Adversarial training with Lightning."""

from energy_at.training.batch_norm import SharedBatchNorm
from energy_at.training.compiled import CompiledNet
from energy_at.training.module import AdversarialTraining
from energy_at.training.monitor import EnergyMonitor
from energy_at.training.presets import FastAT, StandardAT, Trades
from energy_at.training.weights import WeightPerturbation

__all__ = [
    "AdversarialTraining",
    "CompiledNet",
    "EnergyMonitor",
    "FastAT",
    "SharedBatchNorm",
    "StandardAT",
    "Trades",
    "WeightPerturbation",
]
