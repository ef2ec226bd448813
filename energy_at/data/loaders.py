"""Batches from a set that lies on the device as bytes; no workers, no per-image Python.

Random crop and flip of each image separately are one gather on bytes.

Order and augmentation of an epoch are a function of (seed, epoch) alone, so a loader can be put
back to any batch of any epoch. Where several processes train together, ``batch_size`` counts the
images of all of them, and each loader yields its contiguous part of the same batches.
"""

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
    """Images of a device in batches, of which this process has its part."""

    images: ImageSet
    batch_size: int
    _: KW_ONLY
    channels_last: bool = False
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


class EvalLoader(_Loader):
    """Images in their order, without augmentation."""

    def __iter__(self) -> Iterator[Batch]:
        for batch in range(len(self)):
            images = self.images.take(self._positions(batch))
            yield as_floats(images.pixels, self.channels_last), images.labels


@dataclass(eq=False, kw_only=True)
class TrainLoader(_Loader):
    """Shuffled, augmented batches.

    Lightning calls ``set_epoch`` through ``sampler`` before each epoch, and stores and restores
    ``state_dict`` with its own checkpoints, in the middle of an epoch too.
    """

    seed: int
    pad: int = 0
    flip: bool = False
    epoch: int = field(default=0, init=False)
    _yielded: int = field(default=0, init=False)
    _resume: dict[str, int] | None = field(default=None, init=False)

    @property
    def sampler(self) -> "TrainLoader":
        return self

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
        device = self.images.labels.device
        order = torch.randperm(len(self.images), generator=generator).to(device)
        draws = draw(len(order), pad=self.pad, flip=self.flip, generator=generator).to(device)
        for batch in range(first, len(self)):
            part = self._positions(batch)
            images = self.images.take(order[part])
            pixels = images.pixels
            if self.pad or self.flip:
                pixels = crop_and_flip(pixels, draws.take(part), self.pad)
            self._yielded = batch + 1
            yield as_floats(pixels, self.channels_last), images.labels


def as_floats(pixels: Pixels, channels_last: bool) -> Images:
    """fp32 pixels in [0, 1]."""
    x = pixels.to(torch.float32).div_(255)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x
