"""Threat models: the sets that perturbations live in."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from energy_at.core.names import NORMS
from energy_at.core.ranges import require_ranges
from energy_at.core.rng import Noise, normal_like, shares_like, uniform_like
from energy_at.core.rules import an
from energy_at.core.types import Images

IMAGE = (1, 2, 3)  # dimensions of each image of a batch


@dataclass(frozen=True)
class Ball(ABC):
    """A ball of perturbations around zero."""

    eps: float  # radius, in units of the pixel range [0, 1]

    @abstractmethod
    def steepest(self, grad: Images) -> Images:
        """The unit step that raises a function with this gradient the most; 0 where it is flat."""

    @abstractmethod
    def project(self, delta: Images) -> Images:
        """The nearest perturbation inside the ball, image by image."""

    @abstractmethod
    def sample(self, x: Images, generator: Noise | None = None) -> Images:
        """One perturbation for each image, uniform over the ball."""

    def scaled(self, factor: float) -> "Ball":
        return replace(self, eps=factor * self.eps)


@dataclass(frozen=True)
class Linf(Ball):
    """Perturbations that change no pixel by more than ``eps``."""

    def __post_init__(self) -> None:
        require_ranges("attacks.Linf", self)

    def steepest(self, grad: Images) -> Images:
        return grad.sign()

    def project(self, delta: Images) -> Images:
        return delta.clamp(-self.eps, self.eps)

    def sample(self, x: Images, generator: Noise | None = None) -> Images:
        return self.eps * uniform_like(x, generator)


@dataclass(frozen=True)
class L2(Ball):
    """Perturbations whose Euclidean norm, image by image, is at most ``eps``."""

    def __post_init__(self) -> None:
        require_ranges("attacks.L2", self)

    def steepest(self, grad: Images) -> Images:
        return unit(grad, IMAGE)

    def project(self, delta: Images) -> Images:
        norms = torch.linalg.vector_norm(delta.flatten(1), dim=1)
        shrink = (self.eps / _safe(norms)).clamp_max(1)
        return delta * shrink[:, None, None, None]

    def sample(self, x: Images, generator: Noise | None = None) -> Images:
        """Uniform over the ball: a uniform direction, and a radius of density ``r^(d-1)``."""
        direction = self.steepest(normal_like(x, generator))
        radius = self.eps * shares_like(x, generator).pow(1 / x[0].numel())
        return direction * radius[:, None, None, None]


A_BALL = an(Ball, "a threat model, such as Linf(8 / 255)")
BALLS: dict[str, type[Linf] | type[L2]] = dict(zip(NORMS, (Linf, L2), strict=True))


def clip_to_pixels(x: Images, delta: Images) -> Images:
    """The perturbation nearest ``delta`` that keeps ``x + delta`` an image in [0, 1]."""
    return (x + delta).clamp(0, 1) - x


def unit(grad: Tensor, dim: tuple[int, ...] = ()) -> Tensor:
    """A gradient divided by its Euclidean norm over ``dim``, all dimensions if empty.

    0 where the gradient is 0; twice differentiable there, too.
    """
    # Squares of fp32 entries below 1e-19 underflow: divided by the largest entry, none that counts.
    scaled = grad / _safe(grad.detach().abs().amax(dim, keepdim=True))
    # Unlike a norm, the root of a clamped sum has a second derivative at 0.
    return scaled / _safe(scaled.square().sum(dim or None, keepdim=True)).sqrt()


def _safe(norm: Tensor) -> Tensor:
    return norm.clamp_min(torch.finfo(norm.dtype).tiny)
