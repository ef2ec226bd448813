"""From a config to objects: resolvers, ``make`` to instantiate, ``build`` to wire."""

import functools
import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
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


def parse_pixels(name: str, value: str | float, most: float | None = 1) -> float:
    """A length in pixel units from ``8/255`` or ``0.03``.

    Raises:
        ValueError: if it is no number, not positive, or above ``most``, 1 for the pixel range.
    """
    try:
        number = float(Fraction(str(value).replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name}={value} is no number: write a fraction such as 8/255") from None
    if most is not None and number > most:
        raise ValueError(
            f"{name}={value} is above {most:.4g}, but pixels lie in [0, 1]: "
            f"did you mean {value}/255?"
        )
    if number <= 0:
        raise ValueError(f"{name}={value} must be positive: write a fraction such as 8/255")
    return number


def register_resolvers() -> None:
    """Makes the resolvers of the YAML files known.

    ``${pixels:threat.eps,8/255}`` is 8/255, checked; ``${times:1.25,8/255}`` is a product;
    ``${diameter:3,32}`` is the largest L2 distance between two images of this shape;
    ``${samples:auto,1}`` says which examples DER applies to under an attack of so many steps;
    ``${by_steps:1,20,1}`` chooses between a value for one step and one for more;
    ``${by_eps:EPS,[8,16],[1,2]}`` interpolates between values given at 255 EPS, constant beyond
    the last, ``log_by_eps`` their logarithms, and ``step_by_eps`` takes the first value up to 8,
    the second up to 16, and so on; ``${pick:TABLE,NAME,DEFAULT}`` looks up a name;
    ``${sweep_name:}`` is the folder of the sweep that a job belongs to, null without one.
    """
    resolvers: dict[str, Callable[..., Any]] = {
        "pixels": parse_pixels,
        "diameter": lambda channels, size: math.sqrt(channels * size**2),
        "times": lambda a, b: float(Fraction(str(a)) * Fraction(str(b))),
        "samples": lambda wish, steps: _samples(wish, steps),
        "by_steps": lambda steps, one, more: float(one if int(steps) == 1 else more),
        "pick": lambda table, name, default: table[name if name in table else default],
        "by_eps": lambda eps, at, values: float(np.interp(255 * eps, at, values)),
        "log_by_eps": lambda eps, at, values: math.exp(np.interp(255 * eps, at, np.log(values))),
        "step_by_eps": lambda eps, at, values: float(values[bisect_left(at, 255 * eps - 1e-6)]),
        "run_dir": _run_dir,
        "sweep_name": _sweep_name,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def _run_dir(resume: str | None, default: str) -> str:
    """The folder of the run that goes on, if there is one."""
    return resume if resume and (Path(resume) / "config.yaml").is_file() else default


def _sweep_name() -> str | None:
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name


def _samples(wish: str, steps: int) -> str:
    if wish != "auto":
        return wish
    return "abnormal" if int(steps) == 1 else "all"


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


register_resolvers()  # a process that is handed a job of a sweep imports this first
