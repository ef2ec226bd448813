"""Random numbers: of one generator for a batch, or of one for each of its images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from energy_at.core.types import Images, Labels, PerExample

Sampler = Callable[[Tensor, torch.Generator | None], Tensor]  # fills a tensor


class ImageNoise:
    """A generator for each image: what an image draws depends on no other image of its batch.

    The numbers are drawn on the CPU, so they are the same on every device.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = generators

    @classmethod
    def of(cls, images: Sequence[int], *parts: int) -> "ImageNoise":
        """Noise that is a function of each image's number and of ``parts``, such as a seed."""
        return cls([torch.Generator().manual_seed(mixed(*parts, image)) for image in images])

    def take(self, chosen: Tensor) -> "ImageNoise":
        """The generators of the chosen images, a mask or positions, shared with this object."""
        positions = torch.arange(len(self.generators))[chosen.cpu()].tolist()
        return ImageNoise([self.generators[i] for i in positions])

    def draw(self, x: Tensor, sample: Sampler) -> Tensor:
        """One sample for each image, in the shape of an element of ``x``."""
        if len(x) != len(self.generators):
            raise ValueError(f"noise of {len(self.generators)} images for a batch of {len(x)}")
        return torch.stack([sample(torch.empty(x.shape[1:]), g) for g in self.generators])

    def initial_seed(self) -> int:
        """The seed of the first image, for a library that takes one."""
        return self.generators[0].initial_seed()


@dataclass(frozen=True)
class CountedNoise:
    """Noise that is a function of image, draw and position only.

    Stateless, so that images at different draws can share a batch, and computed on the device of
    the images. Splitmix64 (Steele, Lea and Flood, 2014).
    """

    keys: Labels  # one for each image

    @classmethod
    def of(cls, images: Sequence[int], *parts: int) -> "CountedNoise":
        """Noise that is a function of each image's number and of ``parts``, such as a seed."""
        return cls(torch.tensor([mixed(*parts, image) for image in images], dtype=torch.long))

    def __len__(self) -> int:
        return len(self.keys)

    def normal(self, draws: Labels | int, size: int) -> Float[Tensor, "batch size"]:
        """Independent N(0, 1), ``size`` for each image, by Box and Muller.

        ``draws`` is the number of the draw, of all images or of each.
        """
        bits = self._bits(draws, -(-size // 2))
        radius = ((_upper(bits, 40) + 0.5) * 2**-24).log().mul_(-2).sqrt_()
        angle = (_upper(bits << 24, 40) * (2 * torch.pi * 2**-24)).to(torch.float32)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, :size]

    def uniform(self, draws: Labels | int, size: int) -> Float[Tensor, "batch size"]:
        """Independent U(0, 1), 0 possible, 1 not."""
        return _upper(self._bits(draws, size), 40) * 2**-24

    def _bits(self, draws: Labels | int, size: int) -> Int[Tensor, "batch size"]:
        streams = _scrambled(self.keys + _GOLDEN * torch.as_tensor(draws).to(self.keys))
        places = torch.arange(1, size + 1, device=self.keys.device)
        return _scrambled(streams[:, None] + _GOLDEN * places)


_GOLDEN = -0x61C8864680B583EB  # 0x9E3779B97F4A7C15, the golden ratio in 64 bits, with a sign


def _scrambled(bits: Tensor) -> Tensor:
    bits = (bits ^ _shifted(bits, 30)) * -0x40A7B892E31B1A47
    bits = (bits ^ _shifted(bits, 27)) * -0x6B2FB644ECCEEE15
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """Logical right shift; torch's ``>>`` keeps the sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)


def _upper(bits: Tensor, drop: int) -> Tensor:
    return _shifted(bits, drop).to(torch.float32)


@dataclass(frozen=True)
class PartNoise:
    """One generator for a batch that several processes share: each draws for all, keeps its part.

    So the batch gets the numbers that one process would draw for it.
    """

    generator: torch.Generator  # of the batch, in the same state in all processes
    part: slice | Tensor  # positions of the own images in the batch
    whole: int  # images of the batch

    def take(self, chosen: Tensor) -> "PartNoise":
        own = torch.arange(self.whole)[self.part]
        return PartNoise(self.generator, own[chosen.cpu()], self.whole)

    def initial_seed(self) -> int:
        return self.generator.initial_seed()


Noise = torch.Generator | ImageNoise | PartNoise


def uniform_like(x: Images, noise: Noise | None) -> Images:
    """Independent U(-1, 1), the same numbers whatever the memory format of ``x``."""
    return _drawn_like(x, noise, lambda out, g: out.uniform_(-1, 1, generator=g))


def normal_like(x: Images, noise: Noise | None) -> Images:
    """Independent N(0, 1), the same numbers whatever the memory format of ``x``."""
    return _drawn_like(x, noise, lambda out, g: out.normal_(generator=g))


def shares_like(x: Images, noise: Noise | None) -> PerExample:
    """U(0, 1), one number for each image."""
    return _drawn_like(x[:, 0, 0, 0], noise, lambda out, g: out.uniform_(generator=g))


def batch_share_like(x: Images, noise: Noise | None) -> PerExample:
    """U(0, 1), one number for all images of the batch; for each where each has a generator."""
    if isinstance(noise, ImageNoise):
        return shares_like(x, noise)
    generator = noise.generator if isinstance(noise, PartNoise) else noise
    return x.new_empty(1).uniform_(generator=generator).expand(len(x))


def _drawn_like(x: Tensor, noise: Noise | None, sample: Sampler) -> Tensor:
    if isinstance(noise, ImageNoise):
        drawn = noise.draw(x, sample)
    elif isinstance(noise, PartNoise):
        whole = x.new_empty((noise.whole, *x.shape[1:]))
        drawn = _drawn_like(whole, noise.generator, sample)[noise.part]
    else:
        drawn = sample(torch.empty(x.shape, dtype=x.dtype, device=x.device), noise)
    return torch.empty_like(x).copy_(drawn)


def part_of(noise: Noise | None, chosen: Tensor) -> Noise | None:
    """The source of noise of some images of a batch."""
    return noise.take(chosen) if isinstance(noise, ImageNoise | PartNoise) else noise


@contextmanager
def global_draws(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Draws from the global generators, as of dropout, are those of ``seed`` inside.

    After it they continue as if there had been none. Without a seed they continue inside too.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def mixed(*parts: int) -> int:
    """A seed for a generator that depends on all parts."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1
