"""Pre-flight checks: what needs several objects, before a training writes anything."""

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning import seed_everything
from omegaconf import DictConfig, OmegaConf
from torch.nn.modules.batchnorm import _BatchNorm

from energy_at.config.build import Run, build, keys_of, make_attacks, restore
from energy_at.config.schema import check
from energy_at.core.device import keep_freed_memory
from energy_at.core.interrupt import stop_if_interrupted
from energy_at.core.progress import is_alone, write_line
from energy_at.core.rules import ArgumentError
from energy_at.core.types import Images
from energy_at.data.loaders import as_floats, count_extra
from energy_at.reporting.describe import DATASETS, MethodLabel, network_name, threat_and_epochs
from energy_at.runs.checkpoints import read_checkpoint, read_training_state
from energy_at.runs.folder import RunFolder
from energy_at.runs.selection import require_named
from energy_at.training import EMA, BestCheckpoint, CompiledNet, Sentinel
from energy_at.training.callbacks import callbacks_of
from energy_at.training.launch import require_startable
from energy_at.training.optim import optimizer_of, stepped
from energy_at.training.requirements import (
    require_attack,
    require_batches,
    require_logits,
    require_shareable,
)
from energy_at.training.restore import require_restorable
from energy_at.training.validation import names_of_metrics


def prepare(
    cfg: DictConfig, folder: RunFolder, checkpoint: Path | None, overrides: Sequence[str]
) -> Run:
    """Seeds, builds and checks a run, new or resumed from a checkpoint, and opens its folder.

    Nothing is written before.
    """
    check(cfg)
    if cfg.training.keep_memory:
        keep_freed_memory()
    seed_everything(cfg.seed, workers=True, verbose=False)
    wandb_id = read_checkpoint(checkpoint).get("wandb_id") if checkpoint else None
    run = build(cfg, folder, wandb_id=wandb_id, fresh=checkpoint is None, overrides=overrides)
    if checkpoint is not None:
        for path in reversed(folder.saved().values()):  # the last one stays; results need the best
            read_training_state(path)
            restore(run.module, path)
    require_sound(cfg, run, checkpoint)
    with keys_of(cfg.dataset):
        require_startable(run.trainer, run.data)
    stop_if_interrupted()
    if run.trainer.is_global_zero:
        if checkpoint is None:
            RunFolder.create(folder.path, cfg, overrides, train_images=len(run.data.train))
        else:
            folder.note_resume(cfg, overrides)
    return run


def require_beginning(cfg: DictConfig, folder: Path) -> None:
    """Raises what a job of a sweep would raise before it writes anything.

    A training is built without W&B, whose server would be asked, and without initial weights.
    """
    name = cfg.hydra.job.name
    cfg = OmegaConf.masked_copy(
        cfg, [key for key in map(str, cfg) if key not in ("hydra", "trust")]
    )
    check(cfg)
    if name == "train":
        cfg.logger.pop("wandb", None)
        require_sound(cfg, build(cfg, RunFolder(folder), fresh=False))
    else:
        require_named(cfg, [])


def announce(cfg: DictConfig, run: Run, folder: RunFolder) -> None:
    """Prints what is trained, on which images, where: one line each; not among other jobs."""
    silent = cfg.trainer.enable_progress_bar is False or not is_alone()
    if silent or not run.trainer.is_global_zero:
        return
    weights = sum(p.numel() for p in run.module.net.parameters())
    counts = f"{len(run.data.train):,} training, {len(run.data.val):,} held-out images"
    if (extra := run.data.extra_images) is not None:
        size = run.data.batch_size
        number = count_extra(run.data.extra_share or 0, size)
        counts += f"; {number} of {size} in a batch from {len(extra):,} extra images"
    cuda = run.trainer.strategy.root_device.type == "cuda"
    processes = f", {run.trainer.world_size} processes" * (run.trainer.world_size > 1)
    lines = {
        "data": f"{DATASETS.get(cfg.dataset.name, cfg.dataset.name)}: {counts}",
        "network": f"{network_name(cfg)}, {weights:,} weights",
        "method": f"{MethodLabel.of(cfg)}, {threat_and_epochs(cfg)}",
        "device": torch.cuda.get_device_name()
        if cuda
        else f"CPU, {torch.get_num_threads()} thread{'s'[: torch.get_num_threads() > 1]}",
        "folder": str(folder.path),
    }
    lines["device"] += processes
    if not any(isinstance(module, _BatchNorm) for module in run.module.net.modules()):
        lines["network"] += ", no batch norm: training.bn_mode concerns dropout only"
        if cfg.optimizer.get("decay_norm") is False:
            lines["network"] += ", optimizer.decay_norm nothing"
    write_line("\n".join(f"{name:<8} {text}" for name, text in lines.items()))


def require_sound(cfg: DictConfig, run: Run, checkpoint: Path | None = None) -> None:
    """Raises ``ValueError`` by the first pre-flight check of a training that fails.

    One that resumes takes the state in its checkpoint here.
    """
    with keys_of(cfg.dataset):
        images, batch_size = len(run.data.train), run.data.batch_size
        extra = run.data.extra_images  # they fit, or are refused here
        if extra is not None and run.module.attack.reads_place:
            must = f"null: {type(run.module.attack).__name__} follows images of the training set"
            raise ArgumentError("extra", run.data.extra, must)
    with keys_of(cfg.evaluation, n="subset"):
        run.data.test.first(cfg.evaluation.subset)
    _require_images(cfg, run)
    _require_fitting(run)
    if min(images % batch_size or batch_size, images) == 1:
        with keys_of(cfg.dataset):
            require_batches(run.module.net, _first_images(run), batch_size)
    require_attack(run.module.attack, run.module.objective)
    with keys_of(cfg.trainer):
        require_shareable(run.module.attack, run.trainer.world_size)
    make_attacks(cfg.evaluation)
    stages = ["val", *("val_ema" for _ in callbacks_of(run.trainer, EMA))]
    for best in callbacks_of(run.trainer, BestCheckpoint):
        with keys_of(cfg.callbacks.best):
            best.require_measured(stages, run.module.val_attacks)
    _require_measured(run, stages)
    _require_steps(cfg.trainer, -(-images // batch_size))
    classes = cfg.dataset.classes
    for compiled in callbacks_of(run.trainer, CompiledNet):
        with keys_of(cfg.training, mode="compile"):
            compiled.require_fitting(run.trainer, run.module.objective)
    with keys_of(cfg.optimizer):
        optimizer = optimizer_of(run.module.optimizer, run.module.net)
    schedulers = []
    if run.module.schedule is not None:
        steps = cfg.trainer.max_epochs * -(-images // batch_size)
        with keys_of(cfg.schedule):
            schedulers.append(stepped(run.module.schedule, optimizer, steps)["scheduler"])
    for sentinel in callbacks_of(run.trainer, Sentinel):
        with keys_of(cfg.callbacks.sentinel or cfg.callbacks, pert_align="thresholds.pert_align"):
            module, own = run.module, (cfg.callbacks.sentinel or {}).get("classes", classes)
            if own != classes:
                raise ArgumentError("classes", own, f"{classes}, as of the data set: leave it out")
            sentinel.require_fitting(run.trainer, module.objective, module.attack, *schedulers)
    if checkpoint is not None:
        all_images = (images, *run.data.train.shape)
        require_restorable(checkpoint, run.trainer, run.module, optimizer, schedulers, all_images)


def _require_images(cfg: DictConfig, run: Run) -> None:
    """Refuses a size, channels of a network or classes that are not those of the images."""
    channels, *sides = run.data.train.shape
    size, own = cfg.dataset.get("size"), cfg.model.get("channels", channels)
    if size is not None and sides != [size, size]:
        found = "x".join(map(str, sides))
        raise ValueError(f"dataset.size={size} is not that of the images, {found}: leave it out")
    if own != channels:
        raise ValueError(
            f"model.channels={own} are not those of the images, {channels}: leave it out"
        )
    if (highest := int(run.data.train.labels.max())) >= cfg.dataset.classes:
        raise ValueError(
            f"dataset.classes={cfg.dataset.classes} must be at least {highest + 1}: labels go up "
            f"to {highest}"
        )


def _require_measured(run: Run, stages: Sequence[str]) -> None:
    """Refuses callbacks of Lightning that follow what no validation measures."""
    known = [name for stage in stages for name in names_of_metrics(stage, run.module.val_attacks)]
    for callback in run.trainer.callbacks:  # type: ignore[attr-defined]
        name = getattr(callback, "monitor", None)
        if isinstance(name, str) and name not in known:
            raise ValueError(
                f"{type(callback).__name__} follows {name}, which no validation measures: "
                f"choose from {', '.join(known)}"
            )


def _require_fitting(run: Run) -> None:
    """Refuses a network that does not take these images, or has no logit for some class."""
    classes = require_logits(run.module.net, _first_images(run)).shape[1]
    smoothing = run.module.smoothing
    if smoothing is not None and smoothing.classes != classes:
        raise ValueError(
            f"the model has {classes} logits but smoothed labels {smoothing.classes} classes: "
            "leave model.classes to the data set"
        )
    highest = int(run.data.train.labels.max())
    run.module.objective.require_traits(classes)
    if classes <= highest:
        raise ValueError(
            f"the model has {classes} logits but labels go up to {highest}: leave model.classes to "
            "the data set"
        )


def _first_images(run: Run) -> Images:
    images = run.data.test.first(min(2, len(run.data.test)))
    return as_floats(images.pixels, run.data.channels_last)


def _require_steps(trainer: DictConfig, batches: int) -> None:
    """Refuses limits of the training that leave no step, or fewer than it must have.

    Args:
        trainer: Its settings.
        batches: Of an epoch.
    """
    share = trainer.get("limit_train_batches")
    if isinstance(share, float) and share * batches < 1:
        raise ValueError(
            f"trainer.limit_train_batches={share} must be at least {1 / batches:.4g}: an epoch has "
            f"{batches} batches"
        )
    every, left = trainer.get("val_check_interval"), batches
    if share is not None:
        left = int(share * batches) if isinstance(share, float) else min(share, batches)
    if isinstance(every, int) and every > left:
        must = f"at most {left}, the batches of an epoch"
        raise ValueError(f"trainer.val_check_interval={every} must be {must}")
    steps = trainer.max_epochs * batches
    if (trainer.get("min_steps") or 0) > steps:
        must = f"at most {steps} of all epochs"
        raise ValueError(f"trainer.min_steps={trainer.min_steps} must be {must}")
