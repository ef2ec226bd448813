"""Adversarial training with Lightning."""

from energy_at.training.awp import WeightPerturbation
from energy_at.training.callbacks.compile import CompiledNet
from energy_at.training.callbacks.energy_monitor import EnergyMonitor
from energy_at.training.module import AdversarialTraining
from energy_at.training.presets import FastAT, StandardAT, Trades
from energy_at.training.sync_batch_norm import SharedBatchNorm

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
