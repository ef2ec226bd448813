"""Adversarial training with Lightning."""

from energy_at.training.awp import WeightPerturbation
from energy_at.training.callbacks.checkpoints import BestCheckpoint, Continuation, LastCheckpoint
from energy_at.training.callbacks.compile import CompiledNet
from energy_at.training.callbacks.ema import EMA
from energy_at.training.callbacks.energy_monitor import EnergyMonitor
from energy_at.training.callbacks.finite_guard import FiniteGuard
from energy_at.training.callbacks.progress import RunProgress
from energy_at.training.loggers.csv import csv_logger
from energy_at.training.loggers.wandb import wandb_logger
from energy_at.training.module import AdversarialTraining
from energy_at.training.optim import constant, onecycle, piecewise, sgd, triangular
from energy_at.training.presets import FastAT, StandardAT, Trades
from energy_at.training.sentinel.callback import Sentinel
from energy_at.training.sync_batch_norm import SharedBatchNorm

__all__ = [
    "EMA",
    "AdversarialTraining",
    "BestCheckpoint",
    "CompiledNet",
    "Continuation",
    "EnergyMonitor",
    "FastAT",
    "FiniteGuard",
    "LastCheckpoint",
    "RunProgress",
    "Sentinel",
    "SharedBatchNorm",
    "StandardAT",
    "Trades",
    "WeightPerturbation",
    "constant",
    "csv_logger",
    "onecycle",
    "piecewise",
    "sgd",
    "triangular",
    "wandb_logger",
]
