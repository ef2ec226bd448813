"""A training of two steps on every device, and data sets that can be read."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from energy_at.config.build import build, describe, make
from energy_at.config.keys import compose_command, compose_groups
from energy_at.core.extras import install
from energy_at.data.images import as_splits
from energy_at.data.readers import TINY_IMAGENET_URL, tiny_imagenet, tiny_imagenet_files
from energy_at.doctor import Checks, Verdict, require
from energy_at.runs.folder import RunFolder

TWO_STEPS = [
    "dataset=synthetic",
    "dataset.subset=32",
    "dataset.batch_size=16",
    "dataset.val_size=16",
    "model.width=4",
    "training.channels_last=false",
    "attack=rs_fgsm",
    "reg=der",
    "reg.samples=all",
    "logger=none",
    "trainer.max_epochs=1",
    "callbacks.best=null",
    "callbacks.last=null",
    "trainer.enable_checkpointing=false",
    "trainer.enable_progress_bar=false",
]
REMEDY = "undo edits in energy_at; if there are none, pip install --force-reinstall torch lightning"


def checks(datasets: Sequence[str | DictConfig], root: Path) -> Checks:
    """A training on each device, and one check for each data set, named or described."""
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    found: Checks = {f"training on {d}": partial(training, torch.device(d)) for d in devices}
    nothing = Verdict("fail", "dataset= names no data set in conf/dataset", "reinstall energy_at")
    for one in datasets:
        if isinstance(one, str):
            found[f"data {one}"] = partial(check_named, one, root)
        else:
            found[f"data {one.name}"] = partial(readable, one, root)
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
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    cfg = compose_command("train", [*TWO_STEPS, f"trainer.accelerator={accelerator}"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        run = build(cfg, RunFolder(Path()))
        start = parameters_to_vector(run.module.parameters()).detach().clone()
        run.trainer.fit(run.module, run.data)
    return start, parameters_to_vector(run.module.parameters()).detach().cpu()


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
        images = as_splits(reader(root))
    except FileNotFoundError as error:
        first = f"dataset={dataset.name} downloads it on first use; or " if downloads else ""
        return Verdict("warn", str(error), f"{first}name the folder of it: dataset.root=FOLDER")
    except ImportError as error:
        if error.name != "mlxtend":  # a defect
            raise
        return Verdict("warn", str(error), install("demo"))
    except ValueError as error:  # one line about what the user can change
        return Verdict("fail", str(error), "change the files, or what describes them")
    describe(dataset, images)
    train, test = images.train, images.test
    shape = (dataset.channels, dataset.size, dataset.size)
    labels = torch.cat([train.labels, test.labels])
    low, high = int(labels.min()), int(labels.max())
    claims = {
        f"images are {shape}": train.shape == test.shape == shape,
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
