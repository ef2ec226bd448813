"""Energy guidance: each sample's target energy, the pull towards it, and the stopping rule."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from energy_at.core.rng import CountedNoise
from energy_at.core.rules import TRUTH, number, one_of, require
from energy_at.core.types import Labels, PerExample

TARGET_DRAW = -1  # index of the noise draw for targets; steps count from 0


@runtime_checkable
class Guidance(Protocol):
    """Target energies in nats, the pull towards them, and the stopping rule."""

    def targets(
        self,
        y: Labels,
        energies: Float[Tensor, " images"],
        labels: Int[Tensor, " images"],
        noise: CountedNoise,
    ) -> PerExample:
        """Target energy of each sample of class ``y``, from the energies of training images."""

    def pull(self, energy: PerExample, target: PerExample) -> PerExample:
        """Factor of the energy gradient in [-1, 1]; negative values raise the energy."""

    def reached(self, energy: PerExample, target: PerExample) -> Bool[Tensor, " batch"]:
        """Mask of the samples that stop."""


@dataclass(frozen=True)
class Unguided:
    """Plain descent in energy up to the maximum number of steps; the target is minus infinity."""

    def targets(
        self, y: Labels, energies: Tensor, labels: Tensor, noise: CountedNoise
    ) -> PerExample:
        return torch.full(y.shape, -torch.inf, device=y.device)

    def pull(self, energy: PerExample, target: PerExample) -> PerExample:
        return torch.ones_like(energy)

    def reached(self, energy: PerExample, target: PerExample) -> Bool[Tensor, " batch"]:
        return torch.zeros_like(energy, dtype=torch.bool)


@dataclass(frozen=True)
class ClassEnergy:
    """Guidance to the energies of the class's training images under the network.

    Our interpretation of the abstract of arXiv 2505.22486. Mirza et al. (ECCV 2024) descend without
    a pull and stop at the mean energy of the class: ``draw="mean", pulls=False``.

    Attributes:
        draw: ``"empirical"``: the target is the energy of a random training image of the class;
            ``"mean"``: the mean energy of the class.
        tolerance: A sample stops when its energy is within this distance of its target, in nats.
        width: Distance in nats below which the pull falls to zero in proportion, as the slope of
            Huber's loss; 0 for a pull of constant size.
        pulls: Whether a sample below its target is pulled up. If not, it descends as without
            guidance, and stops at its target or below.
    """

    draw: str = "empirical"
    tolerance: float = 0.1
    width: float = 1.0
    pulls: bool = True

    def __post_init__(self) -> None:
        require("draw", self.draw, one_of("empirical", "mean"))
        require("tolerance", self.tolerance, number(0))
        require("width", self.width, number(0))
        require("pulls", self.pulls, TRUTH)

    def targets(
        self, y: Labels, energies: Tensor, labels: Tensor, noise: CountedNoise
    ) -> PerExample:
        """The mean energy of the class, or that of a random image of it.

        Raises:
            ValueError: if a class has no images.
        """
        share = noise.uniform(TARGET_DRAW, 1)[:, 0]
        targets = torch.empty_like(share)
        for label in torch.unique(y).tolist():
            of_class = energies[labels == label]
            if not len(of_class):
                raise ValueError(f"class {label} has no training images: it has no target energy")
            if self.draw == "mean":
                targets[y == label] = of_class.mean()
            else:
                targets[y == label] = of_class[(share[y == label] * len(of_class)).long()]
        return targets

    def pull(self, energy: PerExample, target: PerExample) -> PerExample:
        if not self.pulls:
            return torch.ones_like(energy)
        difference = energy - target
        return difference.sign() if self.width == 0 else (difference / self.width).clamp(-1, 1)

    def reached(self, energy: PerExample, target: PerExample) -> Bool[Tensor, " batch"]:
        difference = energy - target
        return (difference.abs() if self.pulls else difference) <= self.tolerance
