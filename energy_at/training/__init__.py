"""Adversarial training with Lightning."""

from energy_at.training.callbacks.checkpoints import (
    BestCheckpoint,
    CheckpointFiles,
    Continuation,
    LastCheckpoint,
)
from energy_at.training.callbacks.monitors import EnergyMonitor, RunProgress
from energy_at.training.callbacks.networks import EMA, CompiledNet
from energy_at.training.guard import FiniteGuard
from energy_at.training.loggers import csv_logger, wandb_logger
from energy_at.training.module import AdversarialTraining
from energy_at.training.optim import (
    WeightPerturbation,
    adamw,
    constant,
    cosine,
    onecycle,
    piecewise,
    sgd,
    triangular,
)
from energy_at.training.presets import FastAT, StandardAT, Trades
from energy_at.training.sentinel import Sentinel
from energy_at.training.sync_batch_norm import SharedBatchNorm
from energy_at.training.trackers import mlflow_logger, tensorboard_logger

__all__ = [
    "EMA",
    "AdversarialTraining",
    "BestCheckpoint",
    "CheckpointFiles",
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
    "adamw",
    "constant",
    "cosine",
    "csv_logger",
    "mlflow_logger",
    "onecycle",
    "piecewise",
    "sgd",
    "tensorboard_logger",
    "triangular",
    "wandb_logger",
]
