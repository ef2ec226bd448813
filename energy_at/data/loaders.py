"""Batches from a set of bytes, on the device or in a file; no workers, no per-image Python.

Random crop and flip of each image separately are one gather on bytes. Images that are not on the
device, such as those of a memory-mapped file, move there batch by batch.

Order and augmentation of an epoch are a function of (seed, epoch) alone, so a loader can be put
back to any batch of any epoch. Where several processes train together, ``batch_size`` counts the
images of all of them, and each loader yields its contiguous part of the same batches.
"""

import math
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from energy_at.core.distributed import Part
from energy_at.core.rng import mixed
from energy_at.core.types import Images, Labels, Pixels
from energy_at.data.images import ImageSet

Batch = tuple[Images, Labels]


@dataclass(frozen=True)
class Draws:
    """Random crops and flips, one for each image."""

    top: Int[Tensor, " batch"]  # first row of the crop in the padded image
    left: Int[Tensor, " batch"]  # first column
    flip: Bool[Tensor, " batch"]  # whether to mirror it left to right

    def take(self, part: slice) -> "Draws":
        return Draws(self.top[part], self.left[part], self.flip[part])

    def to(self, device: torch.device | str) -> "Draws":
        return Draws(self.top.to(device), self.left.to(device), self.flip.to(device))


def draw(n: int, *, pad: int, flip: bool, generator: torch.Generator) -> Draws:
    """Uniform offsets in ``[0, 2 pad]``, and a fair coin for each flip if ``flip`` is set."""
    offsets = torch.randint(0, 2 * pad + 1, (2, n), generator=generator)
    coins = torch.rand(n, generator=generator) < 0.5
    return Draws(offsets[0], offsets[1], coins if flip else torch.zeros(n, dtype=torch.bool))


def crop_and_flip(pixels: Pixels, draws: Draws, pad: int) -> Pixels:
    """Each image padded with ``pad`` black pixels, cropped to its size, and flipped or not."""
    batch, channels, height, width = pixels.shape
    device = pixels.device
    rows = draws.top[:, None] + torch.arange(height, device=device)
    columns = torch.arange(width, device=device).expand(batch, width)
    columns = torch.where(draws.flip[:, None], width - 1 - columns, columns) + draws.left[:, None]
    return F.pad(pixels, (pad, pad, pad, pad))[
        torch.arange(batch, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


@dataclass(eq=False)
class _Loader:
    """Images in batches, of which this process has its part."""

    images: ImageSet
    batch_size: int
    _: KW_ONLY
    channels_last: bool = False
    device: torch.device | None = None  # of the batches; where the labels are by default
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def part(self, batch: int) -> Part:
        """The part of a batch that belongs to this process."""
        left = len(self.images) - batch * self.batch_size
        return Part(min(left, self.batch_size), self.rank, self.world)

    def _positions(self, batch: int) -> slice:
        """Positions of this process's images in the order of the epoch."""
        first, place = batch * self.batch_size, self.part(batch).place
        return slice(first + place.start, first + place.stop)

    def _moved(self, images: ImageSet) -> ImageSet:
        return images.to(self.device or self.images.labels.device)


class EvalLoader(_Loader):
    """Images in their order, without augmentation."""

    def __iter__(self) -> Iterator[Batch]:
        for batch in range(len(self)):
            images = self._moved(self.images.take(self._positions(batch)))
            yield as_floats(images.pixels, self.channels_last), images.labels


@dataclass(eq=False, kw_only=True)
class TrainLoader(_Loader):
    """Shuffled, augmented batches.

    Lightning calls ``set_epoch`` through ``sampler`` before each epoch, and stores and restores
    ``state_dict`` with its own checkpoints, in the middle of an epoch too.

    With ``extra`` images, such as synthetic ones, the last places of every batch are theirs, in the
    number of steps of an epoch without them (Gowal et al., 2021): the images that would have been
    there wait for another epoch. They are drawn with replacement, and augmented as the others.
    """

    seed: int
    pad: int = 0
    flip: bool = False
    extra: ImageSet | None = None
    extra_share: float = 0.0  # of the images of a batch
    epoch: int = field(default=0, init=False)
    _yielded: int = field(default=0, init=False)
    _order: Labels | None = field(default=None, init=False)
    _resume: dict[str, int] | None = field(default=None, init=False)

    @property
    def sampler(self) -> "TrainLoader":
        return self

    def images_of(self, batch: int) -> Labels:
        """Positions in the set of this process's images of a batch, where none is an extra one."""
        if self._order is None:
            raise RuntimeError("the order of an epoch is drawn with its first batch")
        return self._order[self._positions(batch)]

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self._yielded = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "batch": self._yielded}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._resume = state

    def __iter__(self) -> Iterator[Batch]:
        # A generator starts with its first batch: by then the epoch is set.
        resume, self._resume = self._resume, None
        first = resume["batch"] if resume and resume["epoch"] == self.epoch else 0
        self._yielded = first
        generator = torch.Generator().manual_seed(mixed(self.seed, self.epoch))
        device, count = self.device or self.images.labels.device, len(self.images)
        self._order = torch.randperm(count, generator=generator)
        draws = draw(count, pad=self.pad, flip=self.flip, generator=generator).to(device)
        if self.extra is not None:  # drawn last: the rest is as without them
            extra = torch.randint(len(self.extra), (count,), generator=generator)
            extra = extra.to(self.extra.labels.device)
        self._order = self._order.to(self.images.labels.device)
        for batch in range(first, len(self)):
            part = self._positions(batch)
            start = part.stop if self.extra is None else self._first_extra(batch)
            images = self._moved(self.images.take(self._order[part.start : start]))
            if self.extra is not None:
                more = self._moved(self.extra.take(extra[start : part.stop]))
                images = images.joined(more)
            pixels = images.pixels
            if self.pad or self.flip:
                pixels = crop_and_flip(pixels, draws.take(part), self.pad)
            self._yielded = batch + 1
            yield as_floats(pixels, self.channels_last), images.labels

    def _first_extra(self, batch: int) -> int:
        """Position of the first extra image of this process, in the order of the epoch."""
        part, whole = self._positions(batch), self.part(batch).whole
        own = batch * self.batch_size + whole - count_extra(self.extra_share, whole)
        return int(min(max(own, part.start), part.stop))


def count_extra(share: float, batch: int) -> int:
    """Number of the extra images in a batch."""
    return math.floor(share * batch + 0.5)


def as_floats(pixels: Pixels, channels_last: bool) -> Images:
    """fp32 pixels in [0, 1]."""
    x = pixels.to(torch.float32).div_(255)
    form = torch.channels_last if channels_last else torch.contiguous_format
    return x.contiguous(memory_format=form)  # pixels of an .npz file may have the other one
