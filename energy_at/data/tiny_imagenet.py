"""Tiny-ImageNet in its standard folder layout.

``tiny-imagenet-200/`` holds ``wnids.txt``, ``train/<wnid>/images/*.JPEG`` and ``val/images/*.JPEG``
with ``val/val_annotations.txt``. The labels of ``test/`` were never published, so the validation
folder serves as test set, as in the literature.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from energy_at.data.images import ImageSet

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
SIZE = 64


def tiny_imagenet(root: Path, *, download: bool = False) -> tuple[ImageSet, ImageSet]:
    """Tiny-ImageNet: 100,000 and 10,000 colour images of 64x64 in 200 classes."""
    folder = root / "tiny-imagenet-200"
    if not (folder / "wnids.txt").is_file():
        raise FileNotFoundError(
            f"Tiny-ImageNet not found: unpack {URL} to {folder} (dataset.root=FOLDER)"
        )
    classes = {wnid: k for k, wnid in enumerate((folder / "wnids.txt").read_text().split())}
    return _read(training_files(folder, classes), "train"), _read(val_files(folder, classes), "val")


def training_files(folder: Path, classes: dict[str, int]) -> list[tuple[Path, int]]:
    """Paths and labels of the training images."""
    files = []
    for wnid, label in classes.items():
        found = sorted((folder / "train" / wnid / "images").glob("*.JPEG"))
        if not found:
            raise FileNotFoundError(f"Tiny-ImageNet is incomplete: no image in train/{wnid}/images")
        files += [(path, label) for path in found]
    return files


def val_files(folder: Path, classes: dict[str, int]) -> list[tuple[Path, int]]:
    """Paths and labels of the official validation images."""
    annotations = folder / "val" / "val_annotations.txt"
    if not annotations.is_file():
        raise FileNotFoundError(f"Tiny-ImageNet is incomplete: {annotations} is missing")
    rows = [line.split("\t") for line in annotations.read_text().splitlines() if line]
    bad = next((row for row in rows if len(row) < 2 or row[1] not in classes), None)
    if bad is not None:
        raise ValueError(f"Tiny-ImageNet is damaged: {annotations} has the line {bad}")
    return [(folder / "val" / "images" / row[0], classes[row[1]]) for row in rows]


def _read(files: list[tuple[Path, int]], name: str) -> ImageSet:
    pixels = np.empty((len(files), 3, SIZE, SIZE), dtype=np.uint8)
    for row, (path, _) in enumerate(tqdm(files, desc=f"Tiny-ImageNet {name}", leave=False)):
        try:
            with Image.open(path) as image:
                array = np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise FileNotFoundError(f"Tiny-ImageNet is damaged: cannot read {path}") from error
        if array.shape != (SIZE, SIZE, 3):
            raise ValueError(f"Tiny-ImageNet images are {SIZE}x{SIZE}, but {path} is {array.shape}")
        pixels[row] = array.transpose(2, 0, 1)
    labels = torch.tensor([label for _, label in files])
    return ImageSet(torch.from_numpy(pixels), labels)
