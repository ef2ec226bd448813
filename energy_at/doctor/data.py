"""Data sets that can be read."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from energy_at.config.build import make
from energy_at.config.keys import compose_groups
from energy_at.data.images import ImageSet
from energy_at.data.tiny_imagenet import URL, tiny_imagenet, training_files, val_files
from energy_at.doctor.findings import Checks, Verdict, require


def checks(datasets: Sequence[str], root: Path) -> Checks:
    """One check for each data set, given by its name.

    Raises:
        ValueError: without a data set.
    """
    if not datasets:
        raise ValueError("dataset= names no data set in conf/dataset")
    return {f"data {name}": partial(check_named, name, root) for name in datasets}


def check_named(name: str, root: Path) -> Verdict:
    """Compose the configuration of a data set and check it."""
    return readable(compose_groups("doctor", [f"dataset={name}"]).dataset, root)


def readable(dataset: DictConfig, root: Path) -> Verdict:
    """Read a data set and compare it with its configuration; download nothing."""
    cfg: Any = OmegaConf.create({"dataset": dataset})
    downloads, cfg.dataset.download = cfg.dataset.download, False
    reader = make(cfg.dataset.reader)
    try:
        if reader.func is tiny_imagenet:
            return _undecoded_tiny_imagenet(root)
        images = reader(root)
    except FileNotFoundError as error:
        message, _, remedy = str(error).partition(": ")
        remedy = remedy.partition(", or allow")[0]
        first = f"dataset={dataset.name} downloads it on first use; or " if downloads else ""
        return Verdict("warn", message, first + remedy)
    return _as_described(images, cfg.dataset)


def _as_described(images: tuple[ImageSet, ImageSet], dataset: Any) -> Verdict:
    train, test = images
    shape = (dataset.channels, dataset.size, dataset.size)
    claims = {
        f"images are {shape}": {tuple(part.pixels.shape[1:]) for part in images} == {shape},
        f"labels are below {dataset.classes}": all(
            0 <= int(part.labels.min()) <= int(part.labels.max()) < dataset.classes
            for part in images
        ),
    }
    size = "x".join(map(str, shape))
    message = f"{len(train):,} training and {len(test):,} test images of {size}"
    return require(claims, message, "name the folder of other data: dataset.root=FOLDER")


def _undecoded_tiny_imagenet(root: Path) -> Verdict:
    """Look for its 110,000 files: decoding them would take a minute."""
    folder = root / "tiny-imagenet-200"
    if not folder.is_dir():
        tiny_imagenet(root)  # raises, with the remedy
    again = f"unpack {URL} to {folder} again"
    try:
        names = (folder / "wnids.txt").read_text().split()
        classes = {name: label for label, name in enumerate(names)}
        train, test = training_files(folder, classes), val_files(folder, classes)
    except (OSError, ValueError) as error:
        return Verdict("warn", str(error), again)
    missing = [str(path) for path, _ in test if not path.is_file()]
    if missing:
        return Verdict("warn", f"{missing[0]} is missing", again)
    return Verdict("pass", f"{len(train):,} training and {len(test):,} test images, not decoded")
