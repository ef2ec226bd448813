"""Adversarial training with Lightning."""

from energy_at.training.module import AdversarialTraining
from energy_at.training.monitor import EnergyMonitor
from energy_at.training.presets import FastAT, StandardAT, Trades

__all__ = ["AdversarialTraining", "EnergyMonitor", "FastAT", "StandardAT", "Trades"]
