"""Where random numbers come from: one generator for a batch, or one for each of its images."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from energy_at.shapes import Images, PerExample


class ImageNoise:
    """A generator for each image: what an image draws depends on no other image of its batch.

    The numbers are drawn on the CPU, so they are the same on every device.

    Args:
        seeds: One for each image of the batch.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = list(seeds)
        self._generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]

    @classmethod
    def of(cls, images: Sequence[int], *parts: int) -> "ImageNoise":
        """Noise that is a function of each image's number and of ``parts``, such as a seed."""
        return cls([_mixed(*parts, image) for image in images])

    def take(self, chosen: Tensor) -> "ImageNoise":
        """The generators of the chosen images of the batch, shared with this object.

        Args:
            chosen: A mask over the batch, or positions in it.
        """
        positions = torch.arange(len(self.seeds))[chosen.cpu()].tolist()
        part = ImageNoise([])
        part.seeds = [self.seeds[i] for i in positions]
        part._generators = [self._generators[i] for i in positions]
        return part

    def uniform(self, x: Images) -> Tensor:
        """Independent U(-1, 1)."""
        return torch.stack(
            [torch.empty(x.shape[1:]).uniform_(-1, 1, generator=g) for g in self._of(x)]
        )

    def normal(self, x: Images) -> Tensor:
        """Independent N(0, 1)."""
        return torch.stack([torch.empty(x.shape[1:]).normal_(generator=g) for g in self._of(x)])

    def shares(self, x: Images) -> Tensor:
        """U(0, 1), one number for each image."""
        return torch.cat([torch.rand(1, generator=g) for g in self._of(x)])

    def _of(self, x: Images) -> list[torch.Generator]:
        if len(x) != len(self._generators):
            raise ValueError(f"noise of {len(self._generators)} images for a batch of {len(x)}")
        return self._generators


Noise = torch.Generator | ImageNoise


def uniform_like(x: Images, noise: Noise | None) -> Images:
    """Independent U(-1, 1), the same numbers whatever the memory format of ``x``."""
    if isinstance(noise, ImageNoise):
        return torch.empty_like(x).copy_(noise.uniform(x))
    drawn = torch.empty(x.shape, dtype=x.dtype, device=x.device).uniform_(-1, 1, generator=noise)
    return torch.empty_like(x).copy_(drawn)


def normal_like(x: Images, noise: Noise | None) -> Images:
    """Independent N(0, 1), the same numbers whatever the memory format of ``x``."""
    if isinstance(noise, ImageNoise):
        return torch.empty_like(x).copy_(noise.normal(x))
    drawn = torch.empty(x.shape, dtype=x.dtype, device=x.device).normal_(generator=noise)
    return torch.empty_like(x).copy_(drawn)


def shares_like(x: Images, noise: Noise | None) -> PerExample:
    """U(0, 1), one number for each image."""
    if isinstance(noise, ImageNoise):
        return noise.shares(x).to(x)
    return torch.rand(len(x), dtype=x.dtype, device=x.device, generator=noise)


def part_of(noise: Noise | None, chosen: Tensor) -> Noise | None:
    """What the chosen images of a batch go on drawing from."""
    return noise.take(chosen) if isinstance(noise, ImageNoise) else noise


def _mixed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
