"""One loop for FGSM, RS-FGSM, N-FGSM, PGD and the inner maximisation of TRADES.

A start draws its first perturbation. A goal, which it raises, binds a batch and returns a function
of the logits.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F

from energy_at.attacks.base import Attack, AttackOptions, AttackResult
from energy_at.attacks.threat import A_BALL, Ball, clip_to_pixels
from energy_at.core.ranges import require_ranges
from energy_at.core.rng import Noise, normal_like
from energy_at.core.rules import FUNCTION, number, one_of, require
from energy_at.core.types import Classifier, Images, Labels, Logits, PerExample, Targets
from energy_at.models.modes import (
    frozen_running_stats,
    input_gradients_only,
    no_graph,
    require_tensor,
)

# The first perturbations, in units of the pixel range, not yet clipped to [0, 1]
Start = Callable[[Images, Ball, Noise | None], Images]
Gain = Callable[[Logits], PerExample]
Goal = Callable[[Classifier, Images, Labels], Gain]
Target = Literal["likeliest", "least_likely", "next"]


@dataclass(frozen=True)
class AtClean:
    """No perturbation: the search starts at ``x``."""

    def __call__(self, x: Images, ball: Ball, generator: Noise | None = None) -> Images:
        return torch.zeros_like(x)


@dataclass(frozen=True)
class Uniform:
    """Uniform over ``scale`` times the ball (Madry et al., 2018; with 2, de Jorge et al., 2022)."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        require(number(0), scale=self.scale)

    def __call__(self, x: Images, ball: Ball, generator: Noise | None = None) -> Images:
        return self.scale * ball.sample(x, generator)


@dataclass(frozen=True)
class Gaussian:
    """Normal noise of standard deviation ``std`` in pixel units (Zhang et al., 2019).

    The published code lets this noise leave [0, 1] until the first step; the attack loop here
    clips it, as it clips every start.
    """

    std: float = 0.001

    def __post_init__(self) -> None:
        require_ranges("attacks.Gaussian", self)

    def __call__(self, x: Images, ball: Ball, generator: Noise | None = None) -> Images:
        return self.std * normal_like(x, generator)


def misclassify(_: Classifier, __: Images, y: Labels) -> Gain:
    """Cross-entropy to the label, in nats (Madry et al., 2018, eq. 2.1)."""
    return cross_entropy_to(y)


def cross_entropy_to(targets: Labels | Targets) -> Gain:
    return lambda logits: F.cross_entropy(logits, targets, reduction="none")


def leave_clean_prediction(model: Classifier, x: Images, _: Labels) -> Gain:
    """``KL(p(.|x) || p(.|x*))``, in nats; ``p(.|x)`` is computed once (Zhang et al., 2019)."""
    with no_graph():
        log_p = model(x).to(x.dtype).log_softmax(1)  # in fp32 under autocast too
    return lambda logits: F.kl_div(
        logits.log_softmax(1), log_p, log_target=True, reduction="none"
    ).sum(1)


def widen_margin(_: Classifier, __: Images, y: Labels) -> Gain:
    """``max_{k != y} f_k - f_y``, positive once misclassified (Carlini & Wagner, 2017, f6)."""

    def gain(logits: Logits) -> PerExample:
        right = logits.gather(1, y[:, None]).squeeze(1)
        others = logits.scatter(1, y[:, None], -float("inf"))
        return others.amax(1) - right

    return gain


@dataclass(frozen=True)
class ReachTarget:
    """``log p(t|x*)``, in nats, of a wrong class ``t`` chosen once (Kurakin et al., 2017).

    Args:
        target: The wrong class that is the ``"likeliest"`` or the ``"least_likely"`` at ``x``, or
            the ``"next"`` one, ``(y + 1) mod K``.
    """

    target: Target = "least_likely"

    def __post_init__(self) -> None:
        require(one_of(*get_args(Target)), target=self.target)

    def __call__(self, model: Classifier, x: Images, y: Labels) -> Gain:
        with no_graph():
            logits = model(x)
        if self.target == "next":
            target = (y + 1) % logits.shape[1]
        else:
            sign = 1 if self.target == "likeliest" else -1
            target = (sign * logits).scatter(1, y[:, None], -float("inf")).argmax(1)
        return lambda logits: -F.cross_entropy(logits, target, reduction="none")


@dataclass(frozen=True)
class GradientAttack(Attack):
    """Projected steepest ascent on a goal (Madry et al., 2018, Section 2.1).

    Args:
        ball: Threat model.
        alpha: Step size, in units of the pixel range like ``ball.eps``.
        steps: Number of gradients taken; 1 makes an FGSM.
        start: Draws the first perturbation.
        goal: What to raise.
        project: Whether steps return to the ball. N-FGSM does not (de Jorge et al., 2022).
        eot: Passes whose gradients a step averages: expectation over transformation, for a network
            that draws random numbers (Athalye et al., 2018).
        track_every: Whether every step, not only the first, moves the running statistics of batch
            norm where the caller asks for ``track_stats``.
    """

    ball: Ball
    alpha: float
    steps: int
    start: Start = field(default_factory=AtClean)
    goal: Goal = misclassify
    project: bool = True
    eot: int = 1
    track_every: bool = False

    def __post_init__(self) -> None:
        require(A_BALL, ball=self.ball)
        require_ranges("attacks.GradientAttack", self)
        require(FUNCTION, start=self.start, goal=self.goal)

    @property
    def passes(self) -> float:
        return self.steps * self.eot

    @property
    def bounds(self) -> Ball | None:
        return self.ball if self.project else None

    @property
    def starts_clean(self) -> bool:
        return isinstance(self.start, AtClean)

    @property
    def climbs_loss(self) -> bool:
        return self.goal is misclassify

    def gain(self, model: Classifier, x: Images, y: Labels, targets: Targets | None) -> Gain:
        """The goal on a batch; its cross-entropy is that to the smoothed labels, if given."""
        if self.goal is misclassify and targets is not None:
            return cross_entropy_to(targets)
        return self.goal(model, x, y)

    @torch.enable_grad()
    def _run(self, model: Classifier, x: Images, y: Labels, options: AttackOptions) -> AttackResult:
        if torch.is_inference_mode_enabled():
            raise RuntimeError(
                "attacks need gradients: leave torch.inference_mode(), set inference_mode=False"
            )
        with frozen_running_stats(model):
            gain = self.gain(model, x, y, options.targets)
        delta = clip_to_pixels(x, self.start(x, self.ball, options.generator))
        start = AttackResult(x)
        for step in range(self.steps):
            delta = delta.detach().requires_grad_()
            first = step == 0
            keep = first and options.keep_graph
            tracks = options.track_stats and (first or self.track_every)
            with (
                nullcontext() if tracks else frozen_running_stats(model),
                nullcontext() if keep else input_gradients_only(model),
            ):
                logits = model(x + delta)
            require_tensor(logits)
            logits = logits.to(x.dtype)  # energies are fp32 under autocast too
            grad = _by(delta, gain(logits), retain_graph=keep)
            for _ in range(self.eot - 1):  # a step depends on the direction of the sum alone
                with frozen_running_stats(model), input_gradients_only(model):
                    again = gain(model(x + delta).to(x.dtype))
                grad = grad + _by(delta, again)
            delta = delta.detach()
            if first:
                logits = logits if keep else logits.detach()
                of_label = grad if self.goal is misclassify else None
                start = AttackResult(x, x + delta, logits, of_label, self.starts_clean)
            delta = delta + self.alpha * self.ball.steepest(grad)
            delta = clip_to_pixels(x, self.ball.project(delta) if self.project else delta)
        # x + (x' - x) may miss x' in [0, 1] by a rounding
        return replace(start, x_adv=(x + delta).clamp(0, 1))

    def scaled(self, factor: float) -> "GradientAttack":
        return replace(self, ball=self.ball.scaled(factor), alpha=factor * self.alpha)


def _by(delta: Images, gain: PerExample, *, retain_graph: bool = False) -> Images:
    grad = None
    if gain.requires_grad:
        total = gain.sum()
        (grad,) = torch.autograd.grad(total, delta, retain_graph=retain_graph, allow_unused=True)
    if grad is None:
        raise ValueError(
            "the network returns logits without a gradient with respect to the images, which "
            "attacks need: look for no_grad or detach in its forward"
        )
    return grad
