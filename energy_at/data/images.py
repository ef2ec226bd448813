"""Labelled images, stored as bytes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import UInt8
from sklearn.model_selection import train_test_split
from torch import Tensor

from energy_at.core.files import sha256
from energy_at.core.rules import integer, or_null, require
from energy_at.core.types import Labels, Pixels

Stored = UInt8[Tensor, "stored channel height width"]
PART = 256  # images that are read at once where all are read


@dataclass(frozen=True)
class ImageSet:
    """Images and labels in the same order."""

    pixels: Pixels  # 0 to 255; the network takes pixels / 255
    labels: Labels

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.labels):
            raise ValueError(f"{len(self.pixels)} images but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def digests(self) -> list[str]:
        """SHA-256 of the pixels and of the labels; they depend on the order."""
        pixels = (part.pixels for part in self.parts())
        return [sha256(*map(_bytes, pixels)), sha256(_bytes(self.labels))]

    def parts(self) -> Iterator["ImageSet"]:
        """The images in their order, ``PART`` at a time: all pixels may not fit in memory."""
        for first in range(0, len(self), PART):
            yield self.take(slice(first, first + PART))

    @property
    def shape(self) -> torch.Size:
        """Channels, height and width."""
        return self.pixels.shape[1:]

    def take(self, indices: Labels | slice) -> "ImageSet":
        return ImageSet(self.pixels[indices], self.labels[indices])

    def first(self, n: int | None) -> "ImageSet":
        """The first ``n`` images; all for ``None``.

        Raises:
            ValueError: if there are fewer, or ``n`` is no number of images.
        """
        require(or_null(integer(1, len(self))), n=n)
        return self.take(slice(n))

    def spread(self, n: int | None) -> "ImageSet":
        """``n`` images, evenly spread over all, which may be in the order of their classes.

        Raises:
            ValueError: as ``first``.
        """
        require(or_null(integer(1, len(self))), n=n)
        return self if n is None else self.take(torch.arange(n) * len(self) // n)

    def joined(self, other: "ImageSet") -> "ImageSet":
        """These images, then the others."""
        pairs = ((self.pixels, other.pixels), (self.labels, other.labels))
        return ImageSet(*(torch.cat(pair) for pair in pairs))

    def to(self, device: torch.device | str) -> "ImageSet":
        return ImageSet(self.pixels.to(device), self.labels.to(device))


class IndexedImages(ImageSet):
    """Images that stay where they are stored, such as a memory-mapped file, until they are read.

    A selection is a list of rows; ``pixels`` and ``to`` gather them.
    """

    store: Stored
    rows: Labels  # of the store, one for each image

    def __init__(self, store: Stored, rows: Labels, labels: Labels) -> None:
        for name, value in {"store": store, "rows": rows, "labels": labels}.items():
            object.__setattr__(self, name, value)
        self.__post_init__()

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.labels):
            raise ValueError(f"{len(self.rows)} images but {len(self.labels)} labels")

    @property
    def pixels(self) -> Pixels:
        return self.store[self.rows].contiguous()

    @property
    def shape(self) -> torch.Size:
        return self.store.shape[1:]

    def take(self, indices: Labels | slice) -> "IndexedImages":
        return IndexedImages(self.store, self.rows[indices], self.labels[indices])


@dataclass(frozen=True)
class Splits:
    """The images of a data set, and the names of its classes if it has any."""

    train: ImageSet
    test: ImageSet
    val: ImageSet | None = None  # None: images to validate on are held out of the training set
    names: tuple[str, ...] | None = None


def as_splits(found: Splits | tuple[ImageSet, ImageSet]) -> Splits:
    """What a reader has returned; a pair is training and test images."""
    return found if isinstance(found, Splits) else Splits(*found)


def mean_and_std(images: ImageSet) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, of pixels in [0, 1], to 4 digits.

    Sums of integers, so no order of the images changes a bit. A channel that never changes has the
    standard deviation 1: normalization divides by it.
    """
    sums = torch.zeros((2, images.shape[0]), dtype=torch.int64)
    for part in images.parts():
        levels = part.pixels.transpose(0, 1).flatten(1).to(torch.int32)
        sums += torch.stack([levels.sum(1), (levels * levels).sum(1)])
    n = len(images) * math.prod(images.shape[1:])
    moments = [(a / n, math.sqrt(b * n - a * a) / n) for a, b in sums.T.tolist()]
    mean = [round(m / 255, 4) for m, _ in moments]
    return mean, [round(s / 255, 4) or 1.0 for _, s in moments]


def split(images: ImageSet, held_out: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """Split off ``held_out`` images by seed, stratified by class.

    Returns:
        The remaining images, then those held out.

    Raises:
        ValueError: if nothing would remain, or a class could not be on both sides.
    """
    classes = int(images.labels.max()) + 1
    smallest = int(images.labels.bincount(minlength=classes).min())
    if smallest < 2:
        raise ValueError(f"cannot split: a class has {smallest} images, each needs at least 2")
    if not classes <= held_out <= len(images) - classes:
        raise ValueError(
            f"cannot hold out {held_out} of {len(images)} images of {classes} classes: "
            f"choose from {classes} to {len(images) - classes}"
        )
    rest, held = train_test_split(
        torch.arange(len(images)).numpy(),
        test_size=held_out,
        random_state=seed,
        stratify=images.labels.numpy(),
    )
    return images.take(torch.from_numpy(rest)), images.take(torch.from_numpy(held))


def _bytes(values: Tensor) -> Any:
    return values.cpu().contiguous().flatten().numpy()
