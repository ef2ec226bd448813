"""Langevin dynamics with momentum on the energy of a classifier.

``v <- zeta v - (eta / 2) grad_x E``, ``x <- clamp(x + v + noise, 0, 1)`` (Mirza et al., ECCV
2024). With ``zeta = 0`` and noise of standard deviation ``sqrt(eta)`` it is Langevin dynamics of
``exp(-E)``; with neither it is gradient descent with step ``eta / 2``.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from energy_at.attacks.threat import IMAGE, L2, unit
from energy_at.core.ranges import require_ranges
from energy_at.core.rng import CountedNoise
from energy_at.core.rules import ArgumentError, one_of, require
from energy_at.core.types import Images, Labels, Logits, PerExample
from energy_at.energy.energies import joint_energy, marginal_energy
from energy_at.models.modes import full_precision

ENERGIES: dict[str, Callable[[Logits, Labels], PerExample]] = {
    "joint": joint_energy,  # E(x, y)
    "marginal": lambda logits, _: marginal_energy(logits),  # E(x)
    # E(x, y) - E(x) = -log p(y | x)
    "conditional": lambda logits, y: joint_energy(logits, y) - marginal_energy(logits),
    "mixed": lambda logits, y: (joint_energy(logits, y) + marginal_energy(logits)) / 2,
    # E(x, y) - log p(y | x)
    "sharpened": lambda logits, y: 2 * joint_energy(logits, y) - marginal_energy(logits),
    # The value of conditional, computed as the training loss computes it
    "cross_entropy": lambda logits, y: F.cross_entropy(logits, y, reduction="none"),
}
TARGET_DRAW = -1  # index of the noise draw for targets; steps count from 0


class Guidance:
    """Target energies, the pull towards them, and the stopping rule; by default none.

    Energies and targets are in nats.
    """

    needs_energies: ClassVar[bool] = True  # of every training image

    def targets(
        self,
        y: Labels,
        energies: Float[Tensor, " images"],
        labels: Int[Tensor, " images"],
        noise: CountedNoise,
    ) -> PerExample:
        """Target energy of each sample of class ``y``, from the energies of training images."""
        return torch.full(y.shape, -torch.inf, device=y.device)

    def pull(self, energy: PerExample, target: PerExample) -> PerExample:
        """Factor of the energy gradient in [-1, 1]; negative values raise the energy."""
        return torch.ones_like(energy)

    def reached(self, energy: PerExample, target: PerExample) -> Bool[Tensor, " batch"]:
        """Mask of the samples that stop."""
        return torch.zeros_like(energy, dtype=torch.bool)


class Unguided(Guidance):
    """Plain descent in energy up to the maximum number of steps; the target is minus infinity."""

    needs_energies = False


@dataclass(frozen=True)
class ClassEnergy(Guidance):
    """Guidance to the energies of the class's training images under the network.

    Our interpretation of the abstract of arXiv 2505.22486. Mirza et al. (ECCV 2024) descend without
    a pull and stop at the mean energy of the class: ``draw="mean", pulls=False``.

    Attributes:
        draw: ``"empirical"``: the target is the energy of a random training image of the class;
            ``"mean"``: the mean energy of the class; ``"quantile"``: its quantile ``quantile``.
        quantile: From 0, the lowest energy of the class, to 1.
        tolerance: A sample stops when its energy is within this distance of its target, in nats.
        width: Distance in nats below which the pull falls to zero in proportion, as the slope of
            Huber's loss; 0 for a pull of constant size.
        pulls: Whether a sample below its target is pulled up. If not, it descends as without
            guidance, and stops at its target or below.
    """

    draw: str = "empirical"
    quantile: float = 0.25
    tolerance: float = 0.1
    width: float = 1.0
    pulls: bool = True

    def __post_init__(self) -> None:
        require_ranges("sampling.ClassEnergy", self)

    def targets(
        self, y: Labels, energies: Tensor, labels: Tensor, noise: CountedNoise
    ) -> PerExample:
        """The mean or a quantile of the class's energies, or the energy of a random image of it.

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
            elif self.draw == "quantile":
                targets[y == label] = of_class.quantile(self.quantile)
            else:
                targets[y == label] = of_class[(share[y == label] * len(of_class)).long()]
        return targets

    def pull(self, energy: PerExample, target: PerExample) -> PerExample:
        if not self.pulls:
            return super().pull(energy, target)
        difference = energy - target
        return difference.sign() if self.width == 0 else (difference / self.width).clamp(-1, 1)

    def reached(self, energy: PerExample, target: PerExample) -> Bool[Tensor, " batch"]:
        difference = energy - target
        return (difference.abs() if self.pulls else difference) <= self.tolerance


class Stop(IntEnum):
    """Why a chain has stopped."""

    CAP = 0  # it has taken the maximum number of steps
    REACHED = 1  # its energy is within the tolerance of its target


@dataclass(frozen=True)
class Chains:
    """A batch of Markov chains, one per sample; they may be at different steps."""

    number: Labels  # index of each sample; with the seed it determines the sample
    y: Labels  # classes
    start: Images  # initial images
    x: Images  # current images, in [0, 1]
    velocity: Images  # momentum terms, in pixels per step
    target: PerExample  # target energies of the guidance, in nats
    steps: Labels  # steps taken so far
    keys: Labels  # of each sample's noise
    stop: Int[Tensor, " batch"]  # reasons for stopping, of Stop; meaningful once stopped

    @classmethod
    def start_at(
        cls, number: Labels, y: Labels, x: Images, target: PerExample, noise: CountedNoise
    ) -> "Chains":
        """Chains at step 0; ``x`` is clipped to [0, 1]."""
        x = x.clamp(0, 1)
        zeros = torch.zeros_like(number)
        return cls(number, y, x, x, torch.zeros_like(x), target, zeros, noise.keys, zeros)

    def __len__(self) -> int:
        return len(self.number)

    def take(self, chosen: Bool[Tensor, " batch"] | slice) -> "Chains":
        return Chains(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @classmethod
    def concat(cls, parts: Sequence["Chains"]) -> "Chains":
        columns = ([getattr(part, f.name) for part in parts] for f in fields(cls))
        return cls(*(torch.cat(column) for column in columns))


@dataclass(frozen=True)
class Langevin:
    """Langevin dynamics with momentum.

    Attributes:
        steps: Maximum number of steps, >= 0.
        step_size: ``eta`` > 0, in squared pixels per nat; in pixels with ``normalize``.
        momentum: ``zeta`` in [0, 1).
        noise: Standard deviation of a step's noise, in pixels.
        energy: The energy that is minimized, a name of ``ENERGIES``.
        normalize: Divide each sample's gradient by its L2 norm.
        radius: Largest L2 distance from the start, in pixels; ``None`` for no limit.
        precision: ``fp32``, or ``bf16`` for the network alone; energies and steps are fp32.
    """

    steps: int = 100
    step_size: float = 0.1
    momentum: float = 0.8
    noise: float = 0.001
    energy: str = "joint"
    normalize: bool = False
    radius: float | None = None
    precision: str = "fp32"

    def __post_init__(self) -> None:
        require(one_of(*ENERGIES), energy=self.energy)
        require_ranges("sampling.Langevin", self)

    def advance(
        self, net: nn.Module, chains: Chains, guidance: Guidance
    ) -> tuple[Chains, Chains, PerExample]:
        """Take one step: one forward pass, one gradient with respect to the input.

        Returns:
            The active chains, the stopped chains, and the energies before the step in nats. A
            chain that has reached its target is not moved.

        Raises:
            ValueError: if an energy or a gradient is not finite, or if the first step of every
                chain is longer than the diameter of [0, 1]^d.
        """
        energy, gradient = self._gradients(net, chains, guidance)
        finite = torch.isfinite(energy) & torch.isfinite(gradient.flatten(1).sum(1))
        reached = guidance.reached(energy, chains.target)
        moved = self._move(chains, gradient)
        x = torch.where(reached[:, None, None, None], chains.x, moved.x)
        steps = torch.where(reached, chains.steps, moved.steps)
        stop = torch.where(reached, int(Stop.REACHED), int(Stop.CAP))
        stopped = reached | (steps >= self.steps)
        lengths = torch.linalg.vector_norm(moved.velocity.flatten(1), dim=1)
        too_far = (chains.steps == 0) & (lengths > math.sqrt(x[0].numel()))
        moved = replace(moved, x=x, steps=steps, stop=stop)
        if not bool((stopped | ~finite | too_far).any()):  # the only device synchronisation
            return moved, moved.take(slice(0, 0)), energy
        if not bool(finite.all()):
            step = int(chains.steps[~finite].min())
            why = f"an energy, or its gradient, is not finite at step {step}"
            must = f"smaller, unless the network is damaged: {why}"
            raise ArgumentError("step_size", self.step_size, must)
        if bool(too_far.all()):  # a single one may be an outlier
            why = "the first step of every sample is longer than the diameter of the image space"
            raise ArgumentError("step_size", self.step_size, f"smaller: {why}")
        return moved.take(~stopped), moved.take(stopped), energy

    def _gradients(
        self, net: nn.Module, chains: Chains, guidance: Guidance
    ) -> tuple[PerExample, Images]:
        """Energies, and their gradients multiplied by the pull of the guidance."""
        # One memory format for every batch: the last bits depend on it.
        x = chains.x.detach().clone(memory_format=torch.channels_last).requires_grad_(True)
        device, low = x.device.type, self.precision == "bf16"
        with torch.enable_grad():
            with torch.autocast(device, torch.bfloat16) if low else full_precision(device):
                logits = net(x)
            energy = ENERGIES[self.energy](logits.float(), chains.y)
            pull = guidance.pull(energy.detach(), chains.target)
            (gradient,) = torch.autograd.grad((pull * energy).sum(), x)
        return energy.detach(), gradient

    def _move(self, chains: Chains, gradient: Images) -> Chains:
        if self.normalize:
            gradient = unit(gradient, IMAGE)
        velocity = self.momentum * chains.velocity - 0.5 * self.step_size * gradient
        x = chains.x + velocity
        if self.noise > 0:
            noise = CountedNoise(chains.keys).normal(chains.steps, x[0].numel())
            x = x + self.noise * noise.reshape(x.shape)
        if self.radius is not None:
            x = chains.start + L2(self.radius).project(x - chains.start)
        return replace(chains, x=x.clamp(0, 1), velocity=velocity, steps=chains.steps + 1)


def generate(
    net: nn.Module,
    sampler: Langevin,
    guidance: Guidance,
    starts: Iterable[Chains],
    batch_size: int,
    on_step: Callable[[PerExample], object] = lambda _: None,
) -> Iterator[Chains]:
    """Yield chains as they stop; waiting chains replace them, so that the batch stays full.

    Args:
        net: In evaluation mode. A ``Tiled`` network makes each sample independent of its batch.
        sampler: The dynamics.
        guidance: Target energies and stopping rule.
        starts: Chains at step 0, in batches of any size.
        batch_size: Largest number of chains that move at the same time.
        on_step: Called with the energies of each step.

    Yields:
        Stopped chains, in no particular order.
    """
    queue = filter(len, starts)
    active: Chains | None = None
    waiting: Chains | None = None
    while True:
        parts = [active] if active else []
        room = batch_size - sum(map(len, parts))
        while room and (waiting := waiting or next(queue, None)):
            parts.append(waiting.take(slice(room)))
            waiting = waiting.take(slice(room, None))
            room -= len(parts[-1])
        if not parts:
            return
        active = Chains.concat(parts) if len(parts) > 1 else parts[0]
        if sampler.steps == 0:
            active, stopped = None, active
        else:
            active, stopped, energies = sampler.advance(net, active, guidance)
            on_step(energies)
        if stopped:
            yield stopped
