"""Results of an analysis or a sampling at Weights & Biases: ``logger=wandb``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from energy_at.config.build import build_loggers
from energy_at.evaluation.trained_model import TrainedModel
from energy_at.training.loggers.wandb import TolerantWandb


def require_wandb_only(cfg: DictConfig) -> None:
    """Raises ``ValueError`` if there is a logger besides W&B: only a training writes it."""
    if others := [name for name in cfg.logger if name != "wandb"]:
        raise ValueError(f"logger={others[0]}: only trainings write it; choose wandb or none")


def publish(
    cfg: DictConfig,
    model: TrainedModel,
    folder: Path,
    job_type: str,
    values: Mapping[str, Any],
) -> None:
    """Sends values in a run of their own, with the configuration of command and training."""
    config = cfg.copy()
    OmegaConf.set_struct(config, False)
    for group in ("dataset", "model", "threat"):  # a run brings its own
        config[group] = model.config[group]
    config["trained"] = model.config if cfg.checkpoint is None else None
    for logger in build_loggers(config, folder, job_type):
        assert isinstance(logger, TolerantWandb)
        logger.log_metrics(values)
        logger.finish()
