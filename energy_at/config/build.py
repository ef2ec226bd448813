"""From a config to objects: ``make`` to instantiate, ``build`` to wire."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning import Callback, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from energy_at.attacks import Attack
from energy_at.data import ImageData
from energy_at.objectives import Objective
from energy_at.runs.checkpoints import read_checkpoint
from energy_at.runs.folder import RunFolder
from energy_at.training import AdversarialTraining, CompiledNet, SharedBatchNorm, WeightPerturbation


@dataclass(frozen=True)
class Run:
    """Everything that a config describes, ready to fit."""

    module: AdversarialTraining
    data: ImageData
    trainer: Trainer


def make(cfg: Any) -> Any:
    """Instantiates a config into plain Python objects.

    Without ``_convert_`` a mapping of objects would come back as a ``DictConfig``, which turns the
    dataclasses inside it into configs again.
    """
    return instantiate(cfg, _convert_="all")


def build(cfg: DictConfig, folder: RunFolder, *, wandb_id: str | None = None) -> Run:
    """Wires the objects that a config names; the only place that knows them all."""
    trainer = build_trainer(cfg, folder, wandb_id)
    return Run(build_module(cfg), build_data(cfg), trainer)


def build_data(cfg: DictConfig) -> ImageData:
    """The data of a run."""
    data = cfg.dataset
    return ImageData(
        make(data.reader),
        data.root,
        batch_size=data.batch_size,
        eval_batch_size=data.eval_batch_size,
        val_size=data.val_size,
        subset=data.subset,
        seed=cfg.seed,
        pad=data.pad,
        flip=data.flip,
        channels_last=cfg.training.channels_last,
    )


def build_module(cfg: DictConfig) -> AdversarialTraining:
    """Network, attack, objective, optimizer and schedule of a run."""
    _check_precision(cfg)
    awp = cfg.training.awp
    net = make(cfg.model)
    if cfg.training.channels_last:
        net = net.to(memory_format=torch.channels_last)
    return AdversarialTraining(
        net,
        make(cfg.attack.search),
        Objective(make(cfg.loss.terms) | make(cfg.reg.terms), skip_flat=_skips(cfg)),
        val_attacks=make_attacks(cfg.validation),
        optimizer=make(cfg.optimizer),
        schedule=make(cfg.schedule),
        bn_mode=cfg.training.bn_mode,
        eps_warmup_epochs=cfg.training.eps_warmup,
        awp=WeightPerturbation(awp.gamma, awp.warmup) if awp.gamma else None,
        seed=cfg.seed,
        reuse=cfg.training.get("reuse", True),
    )


def build_trainer(cfg: DictConfig, folder: RunFolder, wandb_id: str | None = None) -> Trainer:
    """Lightning's trainer, with the callbacks and loggers of a run."""
    hidden = {"progress"} if cfg.trainer.get("enable_progress_bar") is False else set()
    callbacks = [
        _callback(make(callback), folder)
        for name, callback in cfg.callbacks.items()
        if callback is not None and name not in hidden
    ]
    if mode := cfg.training.get("compile"):
        callbacks.append(CompiledNet(mode))
    loggers = build_loggers(cfg, folder.path, "train", id=wandb_id)
    try:
        return Trainer(
            **make(cfg.trainer),
            callbacks=callbacks,
            logger=loggers or False,
            plugins=_plugins(),
        )
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise ValueError(f"Lightning refuses the trainer's settings: {error}") from error


def build_loggers(cfg: DictConfig, folder: Path, job_type: str, **options: Any) -> list[Logger]:
    """The loggers that a config names.

    Args:
        cfg: The configuration; W&B keeps all of it.
        folder: Where they write.
        job_type: What W&B calls this kind of run, unless the user has another word.
        options: More for W&B.
    """
    about = options | {"config": OmegaConf.to_container(cfg, resolve=True)}
    loggers = []
    for name, logger in cfg.logger.items():
        if logger is not None:
            kind = {"job_type": logger.get("job_type") or job_type}
            loggers.append(make(logger)(folder, **(about | kind if name == "wandb" else {})))
    return loggers


def reopened(
    folder: RunFolder, which: str = "last", cfg: DictConfig | None = None
) -> tuple[AdversarialTraining, ImageData]:
    """Network and data of a run that has been trained, with its configuration or with ``cfg``.

    Raises:
        FileNotFoundError: if the checkpoint, or the data, is not there.
        ValueError: if the checkpoint cannot be read, or belongs to another network.
    """
    cfg = cfg or folder.config()
    checkpoint = read_checkpoint(folder.checkpoint(which))
    module, data = build_module(cfg), build_data(cfg)
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise ValueError(
            f"{folder.checkpoint(which)} is of another network than {folder.config_file} describes"
        ) from error
    return module, data


def make_attacks(stage: DictConfig) -> dict[str, Attack]:
    """The attacks of a stage; one that is null is left out."""
    return {name: attack for name, attack in make(stage.attacks).items() if attack is not None}


def _callback(made: Any, folder: RunFolder) -> Callback:
    callback = made(dirpath=folder.checkpoints) if isinstance(made, functools.partial) else made
    if isinstance(callback, ModelCheckpoint) and not (callback.monitor or "val").startswith("val"):
        raise ValueError(
            f"a checkpoint must not be chosen by {callback.monitor}: "
            "choose it on held-out images, such as val/acc/pgd"
        )
    if not isinstance(callback, Callback):
        raise ValueError(f"a Lightning callback is needed, got {callback!r}")
    return callback


def _plugins() -> list[Any]:
    """Batch norm over all processes; no jobs that Lightning queues again: resume= goes on."""
    slurm = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
    return [SharedBatchNorm(), *slurm]


def _check_precision(cfg: DictConfig) -> None:
    precision = str(cfg.trainer.get("precision", "32-true"))
    if precision in ("bf16-true", "16-true", "16", "bf16", "16-mixed"):
        raise ValueError(
            f"trainer.precision={precision} is not offered: pixels in low precision turn an eps "
            "of 8/255 into 8.96/255; use bf16-mixed or 32-true"
        )


def _skips(cfg: DictConfig) -> bool:
    """Finding out whether DER is inactive costs nothing on the CPU and a wait on a GPU."""
    wish = cfg.training.skip_inactive
    on_cpu = cfg.trainer.get("accelerator") == "cpu" or not torch.cuda.is_available()
    return on_cpu if wish == "auto" else bool(wish)
