"""A standard classifier of the data set, trained once, that judges samples independently."""

import shutil
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from lightning import seed_everything
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from energy_at.config import CONF
from energy_at.config.build import build, reopen
from energy_at.evaluation.trained_model import TrainedModel
from energy_at.runs.folder import RunFolder
from energy_at.sampling.keys import key_of

STEPS, EPOCHS = 400, 12  # at least; a standard classifier learns fast
WIDTH = {"cpu": 16}  # elsewhere 64
SPARED = (
    "callbacks.best=null",
    "callbacks.energy=null",
    "validation.attacks.fgsm=null",
    "validation.attacks.pgd=null",
    "trainer.limit_val_batches=0",
    "trainer.num_sanity_val_steps=0",
)


def judge_of(subject: TrainedModel, wish: str, cache: Path, *, progress: bool) -> nn.Module | None:
    """The judge on the device of the network.

    Args:
        subject: Whose samples are to be judged.
        wish: ``auto`` trains one, or takes the one trained before; ``none``; or a run's folder.
        cache: Where it is kept.
        progress: Show a bar.

    Raises:
        ValueError: if the run is of another data set.
    """
    require_judge(subject, wish)
    if wish == "none":
        return None
    folder = RunFolder(cache / f"judge-{_key(subject)[:12]}") if wish == "auto" else None
    if folder is None:
        return _opened(RunFolder.open(wish), subject)
    if not folder.has_checkpoint():
        _train(subject, folder, progress=progress)
    return _opened(folder, subject)


def require_judge(subject: TrainedModel, wish: str) -> None:
    """Refuses a judge that is none of these images, before anything is done.

    Raises:
        FileNotFoundError: if the folder of no run is named.
        ValueError: if the run is of another data set.
    """
    if wish in ("auto", "none"):
        return
    theirs, ours = RunFolder.open(wish).config().dataset, subject.config.dataset
    if any(ours[key] != theirs[key] for key in ("name", "classes", "channels", "size")):
        raise ValueError(
            f"judge={wish} is a classifier of {theirs.name}, {theirs.classes} classes, but samples "
            f"are of {ours.name}, {ours.classes} classes"
        )


def _opened(folder: RunFolder, subject: TrainedModel) -> nn.Module:
    module, _ = reopen(folder, "last", folder.config())
    net: nn.Module = module.net.to(subject.device).eval()
    return net.requires_grad_(False)


def _key(subject: TrainedModel) -> str:
    return key_of("judge", subject.data.train.digests(), STEPS, EPOCHS, subject.device.type)


def _train(subject: TrainedModel, folder: RunFolder, *, progress: bool) -> None:
    """A run of ``experiment=standard`` on the training images of the subject.

    It gets its name when it has ended: one that was cut off must not judge.
    """
    part = RunFolder(folder.path.with_name(f"{folder.path.name}.part"))
    shutil.rmtree(part.path, ignore_errors=True)
    images, data = len(subject.data.train), subject.config.dataset
    epochs = max(EPOCHS, round(STEPS * data.batch_size / images))
    precision = "bf16-mixed" if data.size >= 32 else "32-true"
    overrides = [
        "experiment=standard",
        f"model.width={WIDTH.get(subject.device.type, 64)}",
        f"trainer.max_epochs={epochs}",
        f"trainer.precision={precision}",
        f"trainer.accelerator={'gpu' if subject.device.type == 'cuda' else 'cpu'}",
        f"trainer.enable_progress_bar={str(progress).lower()}",
        "logger=none",
        *SPARED,
    ]
    cfg = _composed(overrides, subject.config)
    seed_everything(cfg.seed, workers=True, verbose=False)
    run = build(cfg, part)
    RunFolder.create(part.path, cfg, overrides)
    try:
        with torch.enable_grad():
            run.trainer.fit(run.module, datamodule=run.data)
    except SystemExit:  # how Lightning ends on a signal
        raise KeyboardInterrupt from None
    part.path.rename(folder.path)


def _composed(overrides: list[str], of: DictConfig) -> DictConfig:
    def chosen() -> DictConfig:
        return compose("train", overrides=overrides, return_hydra_config=False)

    if GlobalHydra.instance().is_initialized():
        cfg = chosen()
    else:
        with initialize_config_dir(CONF, version_base="1.3"):
            cfg = chosen()
    with open_dict(cfg):
        cfg.dataset = OmegaConf.to_container(of.dataset, resolve=True)
        cfg.seed = of.seed  # it splits the data: what is held out stays held out
    return cfg
