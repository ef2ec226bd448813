"""Local linearity: regularizers with forward passes of their own, and PertAlign, which is free."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from energy_at.attacks.threat import A_BALL, IMAGE, Ball, unit
from energy_at.core.ranges import require_ranges
from energy_at.core.rng import shares_like
from energy_at.core.rules import require
from energy_at.core.types import (
    Classifier,
    Images,
    Labels,
    PerExample,
    Targets,
    labels_of,
    require_images,
)
from energy_at.models.modes import frozen_running_stats
from energy_at.objectives.objective import A_VICINITY, Trait, Vicinity


@dataclass(frozen=True)
class GradAlign:
    """GradAlign, ``1 - cos(grad CE(x), grad CE(x + eta))``, eta uniform over the ball.

    Andriushchenko & Flammarion (2020, eq. 5). 0 where one of the two gradients vanishes. As in the
    published code, the gradient of the penalty reaches ``grad CE(x + eta)`` only, so that the
    attack's own gradient at ``x`` serves as the other one.

    Args:
        ball: Where eta comes from.
        detach_clean: Set to ``False``, the penalty trains ``grad CE(x)`` too, at the price of a
            second double backward pass.
    """

    ball: Ball
    detach_clean: bool = True
    traits: ClassVar[Trait] = Trait.DIFFERENTIATES_TWICE

    def __post_init__(self) -> None:
        require(A_BALL, ball=self.ball)
        require_ranges("objectives.GradAlign", self)

    def probe(self, vicinity: Vicinity) -> PerExample:
        require(A_VICINITY, vicinity=vicinity)
        model, x, y = vicinity.model, vicinity.x, vicinity.y
        noisy = x + self.ball.sample(x, vicinity.generator)
        at_noise = input_gradient(model, noisy, y, create_graph=True)
        at_clean = vicinity.clean_grad if self.detach_clean else None
        if at_clean is None:
            at_clean = input_gradient(model, x, y, create_graph=not self.detach_clean)
        aligned = pert_align(at_clean, at_noise)  # a cosine, too
        # A subnormal gradient has lost its direction, and dividing by it overflows.
        tiny = torch.finfo(x.dtype).tiny
        defined = (_largest(at_clean) > tiny) & (_largest(at_noise) > tiny)
        return vicinity.joined(torch.where(defined, 1 - aligned, torch.zeros_like(aligned)))


@dataclass(frozen=True)
class ELLE:
    """ELLE, ``[CE(c) - (1 - t) CE(a) - t CE(b)]^2`` (Abad Rocamora et al., 2024, eq. 2).

    ``a`` and ``b`` are uniform over the ball around ``x``, ``t`` over [0, 1], and
    ``c = (1 - t) a + t b``. (The published code steps the optimizer twice a batch; the step here is
    the trainer's one.)

    Args:
        ball: Where ``a`` and ``b`` come from.
    """

    ball: Ball
    traits: ClassVar[Trait] = Trait.NONE

    def __post_init__(self) -> None:
        require(A_BALL, ball=self.ball)

    def probe(self, vicinity: Vicinity) -> PerExample:
        require(A_VICINITY, vicinity=vicinity)
        x, generator = vicinity.x, vicinity.generator
        a, b = (x + self.ball.sample(x, generator) for _ in range(2))
        t = shares_like(x, generator)
        c = torch.lerp(a, b, t[:, None, None, None])
        with frozen_running_stats(vicinity.model):
            logits = vicinity.model(torch.cat([a, b, c])).to(x.dtype)
        y = vicinity.y.long()
        with labels_of(y, logits.shape[1]):
            at_a, at_b, at_c = F.cross_entropy(logits, y.repeat(3), reduction="none").chunk(3)
        return vicinity.joined((at_c - torch.lerp(at_a, at_b, t)).square())


class AdaptiveELLE:
    """ELLE-A: ELLE whose weight jumps up when the error stands out, and decays else.

    The weight starts at 0. After a step whose batch error lies more than ``sensitivity`` standard
    deviations above the mean of all earlier ones, three at least, it becomes the full one, after
    any other it is multiplied by ``decay`` (Abad Rocamora et al., 2024, Algorithm 1). The weight
    of the objective is the full one.

    Args:
        ball: Where the points come from.
        sensitivity: Standard deviations that make an error stand out.
        decay: Factor of the weight in a step without such an error.
    """

    traits: ClassVar[Trait] = Trait.NONE

    def __init__(self, ball: Ball, sensitivity: float = 2.0, decay: float = 0.99) -> None:
        require_ranges("objectives.AdaptiveELLE", sensitivity=sensitivity, decay=decay)
        self.linearity = ELLE(ball)
        self.sensitivity = sensitivity
        self.decay = decay
        zero = torch.zeros((), dtype=torch.float64)
        self._state = {"factor": zero, "count": zero, "mean": zero, "squares": zero}

    def probe(self, vicinity: Vicinity) -> PerExample:
        errors = self.linearity.probe(vicinity)
        state = {name: value.to(errors.device) for name, value in self._state.items()}
        factor, count = state["factor"], state["count"]
        mean, squares = state["mean"], state["squares"]
        error = errors.detach().double().mean()
        deviation = (squares / count.clamp_min(1)).sqrt()
        stands_out = (count > 2) & (error > mean + self.sensitivity * deviation)
        shift = error - mean
        count = count + 1
        mean = mean + shift / count
        self._state = {
            "factor": torch.where(stands_out, torch.ones_like(factor), self.decay * factor),
            "count": count,
            "mean": mean,
            "squares": squares + shift * (error - mean),  # Welford's sum
        }
        return factor.to(errors.dtype) * errors

    def state_dict(self) -> dict[str, Any]:
        return {name: value.clone() for name, value in self._state.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._state = {name: value.clone() for name, value in state.items()}


def pert_align(at_start: Images, at_adv: Images) -> PerExample:
    """PertAlign of each example, ``cos(grad CE(x + eta), grad CE(x*))`` (SORA, arXiv 2606.00738).

    From -1 to 1: near 1 where the loss is linear along the perturbation, low at catastrophic
    overfitting; 0 where a gradient vanishes. Gradients may have any positive scale.
    """
    for gradient in (at_start, at_adv):
        require_images(gradient)
    cosine: PerExample = (unit(at_start, IMAGE) * unit(at_adv, IMAGE)).sum(IMAGE)
    return cosine


def input_gradient(
    model: Classifier, x: Images, y: Labels | Targets, *, create_graph: bool
) -> Images:
    """Gradient of each example's cross-entropy by its image, in nats a pixel unit."""
    delta = torch.zeros_like(x, requires_grad=True)
    with torch.enable_grad(), frozen_running_stats(model):
        logits = model(x + delta).to(x.dtype)
    y = y if y.is_floating_point() else y.long()
    with labels_of(y, logits.shape[1]):
        loss = F.cross_entropy(logits, y, reduction="sum")
    (grad,) = torch.autograd.grad(loss, delta, create_graph=create_graph)
    return grad


def _largest(grad: Images) -> PerExample:
    return grad.detach().flatten(1).abs().amax(1)
