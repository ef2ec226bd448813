"""Which data sets of the configuration can be read."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from energy_at.config.build import make
from energy_at.data.images import ImageSet
from energy_at.data.tiny_imagenet import URL, tiny_imagenet, training_files, val_files
from energy_at.doctor.findings import Checks, Verdict, judged, passed


def checks(datasets: Sequence[Path], root: Path) -> Checks:
    """One check for each data set, given by its configuration file.

    Raises:
        ValueError: if there is none.
    """
    if not datasets:
        raise ValueError("no data set of that name can be chosen")
    return {f"data {file.stem}": partial(readable, file, root) for file in datasets}


def readable(file: Path, root: Path) -> Verdict:
    """Reads a data set, and compares it with its configuration; downloads nothing."""
    cfg: Any = OmegaConf.create({"dataset": OmegaConf.load(file)})
    downloads, cfg.dataset.download = cfg.dataset.download, False
    reader = make(cfg.dataset.reader)
    try:
        if reader.func is tiny_imagenet:
            return _undecoded_tiny_imagenet(root)
        images = reader(root)
    except FileNotFoundError as error:
        said, _, remedy = str(error).partition(": ")
        remedy = remedy.partition(", or allow")[0]
        first = f"dataset={file.stem} downloads it on first use; or " if downloads else ""
        return Verdict("warn", said, first + remedy)
    return _as_described(images, cfg.dataset)


def _as_described(images: tuple[ImageSet, ImageSet], dataset: Any) -> Verdict:
    train, test = images
    shape = (dataset.channels, dataset.size, dataset.size)
    claims = {
        f"images are {shape}": {tuple(part.pixels.shape[1:]) for part in images} == {shape},
        f"labels lie below {dataset.classes}": all(
            0 <= int(part.labels.min()) <= int(part.labels.max()) < dataset.classes
            for part in images
        ),
    }
    size = "x".join(map(str, shape))
    said = f"{len(train):,} training and {len(test):,} test images of {size}"
    return judged(claims, said, "name the folder of other data: dataset.root=FOLDER")


def _undecoded_tiny_imagenet(root: Path) -> Verdict:
    """Looks for its 110,000 files: decoding them would take a minute."""
    folder = root / "tiny-imagenet-200"
    if not folder.is_dir():
        tiny_imagenet(root)  # raises, and says what to do
    again = f"unpack {URL} to {folder} again"
    try:
        names = (folder / "wnids.txt").read_text().split()
        classes = {name: label for label, name in enumerate(names)}
        train, test = training_files(folder, classes), val_files(folder, classes)
    except (OSError, ValueError) as error:
        return Verdict("warn", str(error), again)
    missing = [str(path) for path, _ in test if not path.is_file()]
    said = f"{len(train):,} training and {len(test):,} test images, not decoded"
    return Verdict("warn", f"{missing[0]} is missing", again) if missing else passed(said)
