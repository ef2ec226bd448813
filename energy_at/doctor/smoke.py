"""A training of two steps on every device, and data sets that can be read."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from energy_at.attacks import fgsm, rs_fgsm
from energy_at.attacks.threat import Linf
from energy_at.config.build import make
from energy_at.config.keys import compose_groups
from energy_at.data import ImageData
from energy_at.data.readers import (
    TINY_IMAGENET_URL,
    synthetic,
    tiny_imagenet,
    tiny_imagenet_files,
)
from energy_at.doctor import Checks, Verdict, require
from energy_at.models import preactresnet18
from energy_at.objectives import DER, Weighted
from energy_at.training import FastAT

BALL = Linf(8 / 255)
REMEDY = "undo edits in energy_at; if there are none, pip install --force-reinstall torch lightning"


def checks(datasets: Sequence[str], root: Path) -> Checks:
    """A training on each device, and one check for each data set."""
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    found: Checks = {f"training on {d}": partial(training, torch.device(d)) for d in devices}
    nothing = Verdict("fail", "dataset= names no data set in conf/dataset", "reinstall energy_at")
    found |= {f"data {name}": partial(check_named, name, root) for name in datasets}
    return found if datasets else found | {"data": lambda: nothing}


def training(device: torch.device) -> Verdict:
    """Fast AT with DER changes the weights, and on the CPU one seed gives the same bits."""
    start, end = train_two_steps(device)
    claims = {
        "two steps change the weights": not torch.equal(start, end),
        "the weights are finite": bool(end.isfinite().all()),
    }
    if device.type == "cpu":
        again = train_two_steps(device)[1]
        claims["two trainings with one seed give the same bits"] = torch.equal(end, again)
    return require(claims, "; ".join(claims), REMEDY)


def train_two_steps(device: torch.device) -> tuple[Tensor, Tensor]:
    """All weights before and after two steps and a validation; global generators are restored."""
    reader = partial(synthetic, download=False, channels=3, size=8, classes=2, n_train=48)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        half = [0.5] * 3
        net = preactresnet18(channels=3, classes=2, mean=half, std=half, width=4)
        module = FastAT(
            net,
            BALL,
            {"der": Weighted(DER("all"), 1.0)},
            attack=rs_fgsm(BALL),
            val_attacks={"fgsm": fgsm(BALL)},
        )
        start = torch.nn.utils.parameters_to_vector(net.parameters()).detach().clone()
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=1,
            inference_mode=False,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, ImageData(reader, Path(), batch_size=16, val_size=16))
    return start, torch.nn.utils.parameters_to_vector(net.parameters()).detach().cpu()


def check_named(name: str, root: Path) -> Verdict:
    return readable(compose_groups("doctor", [f"dataset={name}"]).dataset, root)


def readable(described: DictConfig, root: Path) -> Verdict:
    """Read a data set and compare it with its configuration; download nothing."""
    cfg: Any = OmegaConf.create({"dataset": described})  # interpolations name the group
    dataset = cfg.dataset
    downloads, dataset.download = dataset.download, False
    reader = make(dataset.reader, factory=True)
    try:
        if reader.func is tiny_imagenet:
            return _undecoded_tiny_imagenet(root)
        train, test = reader(root)
    except FileNotFoundError as error:
        message, _, remedy = str(error).partition(": ")
        remedy = remedy.partition(", or allow")[0]
        first = f"dataset={dataset.name} downloads it on first use; or " if downloads else ""
        return Verdict("warn", message, first + remedy)
    shape = (dataset.channels, dataset.size, dataset.size)
    labels = torch.cat([train.labels, test.labels])
    low, high = int(labels.min()), int(labels.max())
    claims = {
        f"images are {shape}": train.pixels.shape[1:] == test.pixels.shape[1:] == shape,
        f"labels are below {dataset.classes}": low >= 0 and high < dataset.classes,
    }
    size = "x".join(map(str, shape))
    message = f"{len(train):,} training and {len(test):,} test images of {size}"
    return require(claims, message, "name the folder of other data: dataset.root=FOLDER")


def _undecoded_tiny_imagenet(root: Path) -> Verdict:
    """Look for its 110,000 files: decoding them would take a minute."""
    train, test = tiny_imagenet_files(root)
    missing = next((path for path, _ in test if not path.is_file()), None)
    if missing is not None:
        return Verdict("warn", f"{missing} is missing", f"unpack {TINY_IMAGENET_URL} to {root}")
    return Verdict("pass", f"{len(train):,} training and {len(test):,} test images, not decoded")
