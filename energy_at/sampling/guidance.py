"""Where a sample is led to, how hard, and when it has arrived."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from energy_at.core.rng import CountedNoise
from energy_at.core.rules import TRUTH, number, one_of, require
from energy_at.core.types import Labels, PerExample

DRAWS = ("empirical", "mean")


@runtime_checkable
class Guidance(Protocol):
    """Target energies, the pull towards them, and the rule that ends a sample."""

    def targets(
        self,
        y: Labels,
        energies: Float[Tensor, " images"],
        labels: Int[Tensor, " images"],
        noise: CountedNoise,
    ) -> PerExample:
        """A target for each sample of class ``y``, from the energies of the training images."""

    def pull(self, energy: PerExample, target: PerExample) -> PerExample:
        """How much of the way down in energy each sample goes; below zero it goes up."""

    def reached(self, energy: PerExample, target: PerExample) -> Bool[Tensor, " batch"]:
        """Which samples have arrived."""


@dataclass(frozen=True)
class Unguided:
    """Down in energy, without a target and without an end but the cap on steps."""

    def targets(
        self, y: Labels, energies: Tensor, labels: Tensor, noise: CountedNoise
    ) -> PerExample:
        """No target: minus infinity."""
        return torch.full(y.shape, -torch.inf, device=y.device)

    def pull(self, energy: PerExample, target: PerExample) -> PerExample:
        """All the way down, always."""
        return torch.ones_like(energy)

    def reached(self, energy: PerExample, target: PerExample) -> Bool[Tensor, " batch"]:
        """None."""
        return torch.zeros_like(energy, dtype=torch.bool)


@dataclass(frozen=True)
class ClassEnergy:
    """Towards the energies that the network gives the training images of the class.

    Our reading of arXiv 2505.22486, which we know by its abstract. The predecessor descends without
    a pull and ends a sample at the class's mean: ``draw="mean", pulls=False``.

    Attributes:
        draw: ``"empirical"``: each sample has the energy of a training image of its class that is
            drawn at random; ``"mean"``: all have the mean of their class.
        tolerance: A sample has arrived when its energy is so near its target, in nats.
        width: Nearer than this, in nats, the pull falls to zero in proportion; farther away it is
            one in size. Zero for a pull of constant size.
        pulls: Whether a sample below its target is led up to it; if not, it goes down as without
            guidance, and has arrived when it is at its target or below.
    """

    draw: str = "empirical"
    tolerance: float = 0.1
    width: float = 1.0
    pulls: bool = True

    def __post_init__(self) -> None:
        require("draw", self.draw, one_of(*DRAWS))
        require("tolerance", self.tolerance, number(0))
        require("width", self.width, number(0))
        require("pulls", self.pulls, TRUTH)

    def targets(
        self, y: Labels, energies: Tensor, labels: Tensor, noise: CountedNoise
    ) -> PerExample:
        """The class's mean energy, or that of one of its images, drawn at random.

        Raises:
            ValueError: if a class has no images.
        """
        share = noise.uniform(DRAW, 1)[:, 0]
        found = torch.empty_like(share)
        for label in torch.unique(y).tolist():
            of_class = energies[labels == label]
            if not len(of_class):
                raise ValueError(f"class {label} has no training images: it has no target energy")
            if self.draw == "mean":
                found[y == label] = of_class.mean()
            else:
                places = (share[y == label] * len(of_class)).long()
                found[y == label] = of_class[places]
        return found

    def pull(self, energy: PerExample, target: PerExample) -> PerExample:
        """The slope of Huber's distance to the target."""
        if not self.pulls:
            return torch.ones_like(energy)
        gap = energy - target
        return gap.sign() if self.width == 0 else (gap / self.width).clamp(-1, 1)

    def reached(self, energy: PerExample, target: PerExample) -> Bool[Tensor, " batch"]:
        """Whether each energy is near its target."""
        gap = energy - target
        return gap.abs() <= self.tolerance if self.pulls else gap <= self.tolerance


DRAW = -1  # numbers of draws: steps count from 0
