"""Random crop and flip of each image separately, as one gather on bytes."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from energy_at.core.types import Pixels


@dataclass(frozen=True)
class Draws:
    """Random crops and flips, one for each image.

    Attributes:
        top: First row of the crop in the padded image.
        left: First column.
        flip: Whether to mirror it left to right.
    """

    top: Int[Tensor, " batch"]
    left: Int[Tensor, " batch"]
    flip: Bool[Tensor, " batch"]

    def take(self, part: slice) -> "Draws":
        """The draws of some of the images."""
        return Draws(self.top[part], self.left[part], self.flip[part])

    def to(self, device: torch.device | str) -> "Draws":
        """The same draws on a device."""
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
