"""Langevin dynamics with momentum on the energy of a classifier, sample by sample.

``v <- zeta v - (eta / 2) grad_x E``, ``x <- clamp(x + v + noise, 0, 1)``: the predecessor's sampler
(Mirza et al., ECCV 2024). With ``zeta = 0`` and noise of standard deviation ``sqrt(eta)`` it is
Langevin dynamics of ``exp(-E)``; with neither it is gradient descent with step ``eta / 2``.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn import functional as F

from energy_at.attacks.threat import L2
from energy_at.core.rules import POSITIVE, TRUTH, integer, number, one_of, or_null, require
from energy_at.core.types import Images, Labels, Logits, PerExample
from energy_at.energy.energies import joint_energy, marginal_energy
from energy_at.models.modes import full_precision
from energy_at.sampling.chains import Chains, Stop
from energy_at.sampling.guidance import Guidance

Energy = Callable[[Logits, Labels], PerExample]


def _marginal(logits: Logits, _: Labels) -> PerExample:
    return marginal_energy(logits)


def _conditional(logits: Logits, y: Labels) -> PerExample:
    return joint_energy(logits, y) - marginal_energy(logits)


def _cross_entropy(logits: Logits, y: Labels) -> PerExample:
    return F.cross_entropy(logits, y, reduction="none")


ENERGIES: dict[str, Energy] = {
    "joint": joint_energy,  # E(x, y)
    "marginal": _marginal,  # E(x)
    "conditional": _conditional,  # E(x, y) - E(x) = -log p(y | x)
    "cross_entropy": _cross_entropy,  # the same number, as the loss computes it
}
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Langevin:
    """How a sample moves.

    Attributes:
        steps: The most that a sample takes.
        step_size: ``eta``, in squared pixels a nat; in pixels with ``normalize``.
        momentum: ``zeta``, from 0 up to below 1.
        noise: Standard deviation of the noise of a step, in pixels.
        energy: What is descended, a name of ``ENERGIES``.
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
        require("energy", self.energy, one_of(*ENERGIES))
        require("precision", self.precision, one_of(*PRECISIONS))
        require("steps", self.steps, integer(0))
        require("step_size", self.step_size, POSITIVE)
        require("noise", self.noise, number(0))
        require("momentum", self.momentum, number(0, 1, below=True))
        require("radius", self.radius, or_null(POSITIVE))
        require("normalize", self.normalize, TRUTH)

    def advance(
        self, net: nn.Module, chains: Chains, guidance: Guidance
    ) -> tuple[Chains, Chains, PerExample]:
        """One step of every sample: one forward pass, one gradient of the input.

        Args:
            net: In evaluation mode.
            chains: Samples that have not stopped.
            guidance: Where they go.

        Returns:
            Samples that go on, samples that have stopped, and the energies before the step.

        Raises:
            ValueError: if an energy or a gradient is not finite; if the first step throws every
                sample farther than two images can be apart.
        """
        energy, gradient = self._slopes(net, chains, guidance)
        finite = torch.isfinite(energy) & torch.isfinite(gradient.flatten(1).sum(1))
        reached = guidance.reached(energy, chains.target)
        moved = self._moved(chains, gradient)
        x = torch.where(reached[:, None, None, None], chains.x, moved.x)
        steps = torch.where(reached, chains.steps, moved.steps)
        stop = torch.where(reached, int(Stop.REACHED), int(Stop.CAP))
        stopped = reached | (steps >= self.steps)
        thrown = (chains.steps == 0) & _beyond_all_images(moved.velocity)
        moved = replace(moved, x=x, steps=steps, stop=stop)
        if not bool((stopped | ~finite | thrown).any()):  # the one wait for the device in a step
            return moved, moved.take(slice(0, 0)), energy
        self._require_finite(finite, chains)
        self._require_descent(thrown)
        return moved.take(~stopped), moved.take(stopped), energy

    def _slopes(
        self, net: nn.Module, chains: Chains, guidance: Guidance
    ) -> tuple[PerExample, Images]:
        """Energies, and the gradients of what is descended."""
        # One memory format, whoever has joined the batch: the last bits depend on it.
        x = chains.x.detach().clone(memory_format=torch.channels_last).requires_grad_(True)
        with torch.enable_grad():
            with self._precision(x.device):
                logits = net(x)
            energy = ENERGIES[self.energy](logits.float(), chains.y)
            pull = guidance.pull(energy.detach(), chains.target)
            (gradient,) = torch.autograd.grad((pull * energy).sum(), x)
        return energy.detach(), gradient

    def _require_finite(self, finite: Bool[Tensor, " batch"], chains: Chains) -> None:
        if not bool(finite.all()):
            raise ValueError(
                f"an energy, or its gradient, is not finite at step "
                f"{int(chains.steps[~finite].min())}: the network is damaged, or "
                f"sampler.step_size={self.step_size:g} is too large"
            )

    def _require_descent(self, thrown: Bool[Tensor, " batch"]) -> None:
        # Of all of them: the gradient of a few may be an outlier, and their samples bad ones.
        if bool(thrown.all()):
            raise ValueError(
                f"sampler.step_size={self.step_size:g} throws every sample farther than two images "
                "can be apart, with its first step: choose a smaller one"
            )

    def _moved(self, chains: Chains, gradient: Images) -> Chains:
        if self.normalize:
            norms = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
            gradient = gradient / norms.clamp_min(1e-12)[:, None, None, None]
        velocity = self.momentum * chains.velocity - 0.5 * self.step_size * gradient
        x = chains.x + velocity
        if self.noise > 0:
            drawn = chains.noise.normal(chains.steps, x[0].numel())
            x = x + self.noise * drawn.reshape(x.shape)
        if self.radius is not None:
            x = chains.start + L2(self.radius).project(x - chains.start)
        return replace(chains, x=x.clamp(0, 1), velocity=velocity, steps=chains.steps + 1)

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        if self.precision == "fp32":
            return full_precision(device.type)
        return torch.autocast(device.type, dtype=torch.bfloat16)


def _beyond_all_images(step: Images) -> Bool[Tensor, " batch"]:
    """Which steps are longer than the diameter of [0, 1]^d."""
    lengths: PerExample = torch.linalg.vector_norm(step.flatten(1), dim=1)
    return lengths > math.sqrt(step[0].numel())


def generate(
    net: nn.Module,
    sampler: Langevin,
    guidance: Guidance,
    starts: Iterable[Chains],
    batch_size: int,
    seen: Callable[[Tensor], object] = lambda _: None,
) -> Iterator[Chains]:
    """Samples as they stop; the next ones take their places, so that the batch stays full.

    Args:
        net: In evaluation mode; nobody but it decides whether a sample depends on its batch.
        sampler: How they move.
        guidance: Where they go.
        starts: Samples that have taken no step, in portions of any size.
        batch_size: Samples that move at once.
        seen: Is shown the energies of every step.

    Yields:
        Samples that have stopped, in no particular order.
    """
    queue = _Queue(starts)
    active = _filled(None, queue, batch_size)
    while active is not None and sampler.steps == 0:
        yield active
        active = _filled(None, queue, batch_size)
    while active is not None:
        active, stopped, energies = sampler.advance(net, active, guidance)
        seen(energies)
        if len(stopped):
            yield stopped
            active = _filled(active, queue, batch_size)


def _filled(active: Chains | None, queue: "_Queue", batch_size: int) -> Chains | None:
    """The samples with new ones up to the size of the batch; ``None`` if there are none left."""
    parts = [active] if active is not None and len(active) else []
    room = batch_size - sum(map(len, parts))
    while room and (new := queue.next(room)) is not None:
        parts.append(new)
        room -= len(new)
    return Chains.joined(parts) if parts else None


class _Queue:
    """Portions of samples, handed out in others."""

    def __init__(self, portions: Iterable[Chains]) -> None:
        self._portions = iter(portions)
        self._rest: Chains | None = None

    def next(self, most: int) -> Chains | None:
        """Up to so many samples; ``None`` at the end."""
        portion = self._rest if self._rest is not None else next(self._portions, None)
        if portion is None:
            return None
        rest = portion.take(slice(most, None))
        self._rest = rest if len(rest) else None
        return portion.take(slice(0, most))
