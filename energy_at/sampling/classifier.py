"""The independent classifier: standard training on the data set, done once for all samplings."""

import signal
import sys
from pathlib import Path

import torch
from lightning import seed_everything
from omegaconf import OmegaConf, open_dict
from torch import nn

from energy_at.config.build import build, reopen
from energy_at.config.keys import compose_command
from energy_at.core.files import staged, user_cache, write_error
from energy_at.core.lock import locked
from energy_at.core.progress import write_line
from energy_at.core.rules import ArgumentError
from energy_at.evaluation import TrainedModel
from energy_at.runs.folder import RunFolder
from energy_at.sampling.prepare import cache_key

STEPS, EPOCHS = 400, 12  # at least; a standard classifier learns fast
WIDTH = {"cpu": 16}  # elsewhere 64
OMITTED = (
    "callbacks.best=null",
    "callbacks.energy=null",
    "validation.attacks.fgsm=null",
    "validation.attacks.pgd=null",
    "trainer.limit_val_batches=0",
    "trainer.num_sanity_val_steps=0",
)


def cache_folder(cache: str | None) -> Path:
    """The folder of what is computed once for all networks; ``user_cache`` if left out.

    Raises:
        ArgumentError: if it cannot be written.
    """
    folder = user_cache() if cache is None else Path(cache)
    if why := write_error(folder):
        raise ArgumentError("cache", str(folder), f"a folder that can be written ({why})")
    return folder


def find_classifier(model: TrainedModel, choice: str, cache: str | None = None) -> RunFolder | None:
    """The run of the independent classifier; for ``auto`` it may have to be trained first.

    Args:
        model: The network whose samples it classifies.
        choice: ``auto``, ``none``, or the folder of a run.
        cache: Folder that a trained one is kept in, for all runs; ``user_cache`` if left out.

    Raises:
        FileNotFoundError: if ``choice`` is a folder without a run, or without a checkpoint.
        ValueError: if the run is of another data set, or if ``cache`` cannot be written.
    """
    if choice == "none":
        return None
    if choice == "auto":
        key = cache_key("classifier", model.data.train.digests(), STEPS, EPOCHS, model.device.type)
        return RunFolder(cache_folder(cache) / f"classifier-{key[:12]}")
    run = RunFolder.open(choice)
    theirs, ours = run.config().dataset, model.config.dataset
    if any(ours[key] != theirs[key] for key in ("name", "classes", "channels", "size")):
        raise ValueError(
            f"judge={choice} is a classifier of {theirs.name}, {theirs.classes} classes, but "
            f"samples are of {ours.name}, {ours.classes} classes"
        )
    run.checkpoint()  # must exist
    return run


def load_classifier(model: TrainedModel, folder: RunFolder, *, progress: bool) -> nn.Module:
    """The independent classifier on the device of the network, trained if it was not before."""
    if not folder.has_checkpoint():
        with locked(folder.path.with_name(f".{folder.path.name}.lock"), folder.path):
            _train(model, folder, progress=progress)
    module, _ = reopen(folder)
    net: nn.Module = module.net.to(model.device).eval()
    return net.requires_grad_(False)


def _train(model: TrainedModel, folder: RunFolder, *, progress: bool) -> None:
    """A run of ``experiment=standard`` on the training images of the network."""
    images, data = len(model.data.train), model.config.dataset
    overrides = [
        "experiment=standard",
        f"model.width={WIDTH.get(model.device.type, 64)}",
        f"trainer.max_epochs={max(EPOCHS, round(STEPS * data.batch_size / images))}",
        f"trainer.precision={'bf16-mixed' if data.size >= 32 else '32-true'}",
        f"trainer.accelerator={'gpu' if model.device.type == 'cuda' else 'cpu'}",
        f"trainer.enable_progress_bar={str(progress).lower()}",
        "logger=none",
        *OMITTED,
    ]
    cfg = compose_command("train", overrides)
    with open_dict(cfg):
        cfg.dataset = OmegaConf.to_container(data, resolve=True)
        cfg.seed = model.config.seed  # it splits the data: what is held out stays held out
    seed_everything(cfg.seed, workers=True, verbose=False)
    if progress:
        epochs = cfg.trainer.max_epochs
        write_line(f"training the independent classifier that judge=auto names: {epochs} epochs")
    with staged(folder.path) as part, torch.enable_grad():
        run = build(cfg, RunFolder(part))
        RunFolder.create(part, cfg, overrides)
        try:
            run.trainer.fit(run.module, datamodule=run.data)
        except SystemExit:  # how Lightning ends on a signal
            if run.trainer.received_sigterm:
                sys.exit(128 + signal.SIGTERM)
            raise KeyboardInterrupt from None
