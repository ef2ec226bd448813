"""Samples on their way: what each of them needs to take its next step."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from energy_at.core.rng import CountedNoise
from energy_at.core.types import Images, Labels, PerExample


class Stop(IntEnum):
    """Why a sample has stopped."""

    CAP = 0  # it has taken as many steps as it may
    REACHED = 1  # its energy is within the tolerance of its target


@dataclass(frozen=True)
class Chains:
    """A batch of samples, each with its own past.

    Attributes:
        number: Of each sample; everything about it follows from its number and the seed.
        y: Its class.
        start: Where it began.
        x: Where it is.
        velocity: Of the momentum, in pixels a step.
        target: Energy that guidance leads it to, in nats.
        steps: That it has taken.
        keys: Of its noise.
        stop: Why it has stopped; a ``Stop``, for those that have.
    """

    number: Labels
    y: Labels
    start: Images
    x: Images
    velocity: Images
    target: PerExample
    steps: Labels
    keys: Labels
    stop: Int[Tensor, " batch"]

    @classmethod
    def begun(
        cls, number: Labels, y: Labels, x: Images, target: PerExample, noise: CountedNoise
    ) -> "Chains":
        """Samples that have taken no step yet.

        Args:
            number: Of the samples.
            y: Their classes.
            x: Where they begin; pixels outside [0, 1] are cut off.
            target: Their target energies.
            noise: What they draw from.
        """
        x = x.clamp(0, 1)
        none = torch.zeros_like(number)
        return cls(number, y, x, x, torch.zeros_like(x), target, none, noise.keys, none)

    def __len__(self) -> int:
        return len(self.number)

    @property
    def noise(self) -> CountedNoise:
        """What the samples draw from."""
        return CountedNoise(self.keys)

    def take(self, chosen: Bool[Tensor, " batch"] | slice) -> "Chains":
        """Some of the samples."""
        return Chains(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence["Chains"]) -> "Chains":
        """All samples of the parts, in their order."""
        columns = ([getattr(part, f.name) for part in parts] for f in fields(cls))
        return cls(*(torch.cat(column) for column in columns))
