"""Where an attack starts its search."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from energy_at.attacks.threat import Ball
from energy_at.core.rng import Noise, normal_like
from energy_at.core.types import Images


@runtime_checkable
class Start(Protocol):
    """Draws the first perturbation ``eta`` of each image."""

    def __call__(self, x: Images, ball: Ball, generator: Noise | None = None) -> Images:
        """``eta``, in units of the pixel range, not yet clipped to [0, 1]."""


@dataclass(frozen=True)
class AtClean:
    """No perturbation: the search starts at ``x``."""

    def __call__(self, x: Images, ball: Ball, generator: Noise | None = None) -> Images:
        return torch.zeros_like(x)


@dataclass(frozen=True)
class Uniform:
    """Uniform over ``scale`` times the ball (Madry et al., 2018; with 2, de Jorge et al., 2022)."""

    scale: float = 1.0

    def __call__(self, x: Images, ball: Ball, generator: Noise | None = None) -> Images:
        return self.scale * ball.sample(x, generator)


@dataclass(frozen=True)
class Gaussian:
    """Normal noise of standard deviation ``std`` in pixel units (Zhang et al., 2019).

    The published code lets this noise leave [0, 1] until the first step; the attack loop here
    clips it, as it clips every start.
    """

    std: float = 0.001

    def __call__(self, x: Images, ball: Ball, generator: Noise | None = None) -> Images:
        return self.std * normal_like(x, generator)
