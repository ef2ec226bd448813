"""One loop for FGSM, RS-FGSM, N-FGSM, PGD and the inner maximisation of TRADES."""

from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch

from energy_at.attacks.base import AttackOptions, AttackResult, Search
from energy_at.attacks.goals import Goal, misclassify
from energy_at.attacks.starts import AtClean, Start
from energy_at.attacks.threat import Ball, clip_to_pixels
from energy_at.core.rules import POSITIVE, integer, require
from energy_at.core.types import Classifier, Images, Labels, Logits
from energy_at.models.modes import frozen_running_stats, input_gradients_only


@dataclass(frozen=True)
class GradientAttack(Search):
    """Projected steepest ascent on a goal (Madry et al., 2018, Section 2.1).

    Args:
        ball: Threat model.
        alpha: Step size, in units of the pixel range like ``ball.eps``.
        steps: Number of gradients taken; 1 makes an FGSM.
        start: First perturbation.
        goal: What to raise.
        project: Whether steps return to the ball. N-FGSM does not (de Jorge et al., 2022).
    """

    ball: Ball
    alpha: float
    steps: int
    start: Start = field(default_factory=AtClean)
    goal: Goal = misclassify
    project: bool = True

    def __post_init__(self) -> None:
        require("steps", self.steps, integer(1))
        require("alpha", self.alpha, POSITIVE)

    @property
    def starts_clean(self) -> bool:
        return isinstance(self.start, AtClean)

    @torch.enable_grad()
    def _run(self, model: Classifier, x: Images, y: Labels, options: AttackOptions) -> AttackResult:
        if torch.is_inference_mode_enabled():
            raise RuntimeError("attacks need gradients: use trainer.inference_mode=false")
        with frozen_running_stats(model):
            gain = self.goal(model, x, y)
        delta = clip_to_pixels(x, self.start(x, self.ball, options.generator))
        start = AttackResult(x)
        for step in range(self.steps):
            delta = delta.detach().requires_grad_()
            first = step == 0
            keep = first and options.keep_graph
            with (
                nullcontext() if first and options.track_stats else frozen_running_stats(model),
                nullcontext() if keep else input_gradients_only(model),
            ):
                logits = model(x + delta).to(x.dtype)  # energies are fp32 under autocast too
            (grad,) = torch.autograd.grad(gain(logits).sum(), delta, retain_graph=keep)
            if first:
                start = self._start(x + delta.detach(), logits if keep else logits.detach(), grad)
            delta = self._moved(x, delta.detach(), grad)
        # x + (x' - x) may miss x' in [0, 1] by a rounding
        return replace(start, x_adv=(x + delta).clamp(0, 1))

    def scaled(self, factor: float) -> "GradientAttack":
        return replace(self, ball=self.ball.scaled(factor), alpha=factor * self.alpha)

    def _start(self, x_start: Images, logits: Logits, grad: Images) -> AttackResult:
        of_label = grad if self.goal is misclassify else None
        return AttackResult(x_start, x_start, logits, of_label, self.starts_clean)

    def _moved(self, x: Images, delta: Images, grad: Images) -> Images:
        delta = delta + self.alpha * self.ball.steepest(grad)
        if self.project:
            delta = self.ball.project(delta)
        return clip_to_pixels(x, delta)
