"""Single-step attacks with a start of their own: LIET, FGSM-PGI, NuAT, SORA.

Their formulas are those of the FastAT benchmark (arXiv 2604.22853) and of SORA (arXiv 2606.00738).
They are defined in the L-inf ball only. Each takes one step of FGSM from its start; what it keeps
from batch to batch lies in the memory that the caller gives it.
"""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from energy_at.attacks.base import Attack, AttackOptions, AttackResult, Memory, Place
from energy_at.attacks.gradient import (
    Gain,
    Goal,
    GradientAttack,
    Uniform,
    cross_entropy_to,
    misclassify,
)
from energy_at.attacks.threat import Ball, Linf, clip_to_pixels
from energy_at.core.ranges import require_ranges
from energy_at.core.rng import batch_share_like, uniform_like
from energy_at.core.rules import Rule, number, require
from energy_at.core.types import Classifier, Images, Labels, Logits, PerExample
from energy_at.models.modes import eval_mode, no_graph

WIDE = 8 / 255  # LIET: above this radius its noise is doubled and its step is not projected
_LINF = Rule(
    "an L-inf ball (threat=linf): the method is defined in no other", lambda b: isinstance(b, Linf)
)


@dataclass(frozen=True)
class SingleStep(Attack):
    """One step of ``alpha`` from a start that the method defines.

    Args:
        ball: Threat model, L-inf.
        alpha: Step size in units of the pixel range; the published one if left out.
        steps: 1.
    """

    ball: Ball
    alpha: float | None = None
    steps: int = 1

    published_alpha: ClassVar[float] = 1.0  # in units of the radius

    def __post_init__(self) -> None:
        require(_LINF, ball=self.ball)
        require_ranges("attacks.SingleStep", self)

    @property
    def climbs_loss(self) -> bool:
        return True

    @property
    def step(self) -> float:
        """The step size."""
        return self.published_alpha * self.ball.eps if self.alpha is None else self.alpha

    def scaled(self, factor: float) -> "SingleStep":
        alpha = None if self.alpha is None else factor * self.alpha
        return replace(self, ball=self.ball.scaled(factor), alpha=alpha)

    def _run(self, model: Classifier, x: Images, y: Labels, options: AttackOptions) -> AttackResult:
        assert options.place is not None
        return self._search(model, x, y, options, options.place)

    @abstractmethod
    def _search(
        self, model: Classifier, x: Images, y: Labels, options: AttackOptions, place: Place
    ) -> AttackResult:
        """One step at a place in a training."""

    def _fgsm_from(
        self, delta: Images, *, goal: Goal = misclassify, project: bool = True
    ) -> GradientAttack:
        """The step from ``x + delta``, clipped to pixels."""

        def start(*_: object) -> Images:
            return delta

        return GradientAttack(self.ball, self.step, 1, start, goal, project)


@dataclass(frozen=True)
class LIET(SingleStep):
    """Start from the label information of a grey image, LIET (Pan et al., ICCV 2025).

    In every ``every``-th batch of an epoch ``LI[c] = eps sign grad CE(f(grey), c)``, ``grey`` the
    constant image 0.5 and the network in evaluation mode. A random share of the entries of
    ``LI[y]``, U(``low``, ``high``) for each batch, becomes uniform noise in the ball, and the sign
    of all flips with probability 1/2. Above 8/255 the noise is twice as wide, and the step from
    there is not projected.

    Args:
        classes: Number of classes.
        every: Batches (>= 1) between two gradients at the grey image.
        low: Smallest share of noise.
        high: Largest share of noise.
    """

    classes: int = 10
    every: int = 20
    low: float = 0.1
    high: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges("attacks.LIET", self)
        require(number(self.low, 1), high=self.high)

    @property
    def period(self) -> int:
        return self.every

    @property
    def bounds(self) -> Ball | None:
        return None if self._is_wide else self.ball

    @property
    def _is_wide(self) -> bool:
        return self.ball.eps > WIDE * (1 + 1e-6)

    @property
    def extra_images(self) -> int:
        return self.classes

    def memory_shapes(self, total: int, image: Sequence[int]) -> dict[str, Sequence[int]]:
        return {"label_signs": (self.classes, *image)}

    def _search(
        self, model: Classifier, x: Images, y: Labels, options: AttackOptions, place: Place
    ) -> AttackResult:
        memory, noise = options.memory, options.generator
        if place.batch % self.every == 0 or "label_signs" not in memory:
            memory["label_signs"] = self._label_signs(model, x)
        wide = self._is_wide
        entries = (1 + uniform_like(x, noise)) / 2
        drawn = (2 if wide else 1) * self.ball.sample(x, noise)
        share = self.low + (self.high - self.low) * batch_share_like(x, noise)
        delta = torch.where(
            entries < _per_image(share), drawn, self.ball.eps * memory["label_signs"][y]
        )
        delta = torch.where(_per_image(batch_share_like(x, noise)) < 0.5, -delta, delta)
        return self._fgsm_from(delta, project=not wide).run(model, x, y, options)

    def _label_signs(self, model: Classifier, x: Images) -> Tensor:
        """``sign grad CE(f(grey), c)`` of every class ``c``."""
        grey = x.new_full((self.classes, *x.shape[1:]), 0.5)
        labels = torch.arange(self.classes, device=x.device)
        with eval_mode(model) if isinstance(model, nn.Module) else nullcontext():
            found = GradientAttack(self.ball, self.step, 1).run(model, grey, labels)
        assert found.start_grad is not None
        return found.start_grad.sign()


@dataclass(frozen=True)
class FGSMPGI(SingleStep):
    """Start from the perturbation of the epoch before, FGSM-PGI (Jia et al., ECCV 2022).

    Each training image keeps a perturbation ``delta`` and a momentum ``m`` (the variant FGSM-MEP).
    With ``g = grad CE(x + delta)``, ``x* = x + clip(delta + alpha sign g)``, ``m <- g / |g|_1 +
    decay m``, with the norm of the whole batch, and ``delta <- clip(delta + alpha sign m)``. In
    the first batch of every ``reset``-th epoch all start again from ``eps sign U(-1, 1)``.

    ``delta`` belongs to the image as the network sees it: crop and flip of each epoch do not move
    it, as published. Memory: two fp32 numbers for each pixel and channel of the training set.

    Args:
        reset: Epochs (>= 1) between two new starts.
        decay: Of the momentum.
    """

    reset: int = 40
    decay: float = 0.3

    reads_place: ClassVar[bool] = True
    reads_whole_batch: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges("attacks.FGSMPGI", self)

    def memory_shapes(self, total: int, image: Sequence[int]) -> dict[str, Sequence[int]]:
        return {"delta": (total, *image), "momentum": (total, *image)}

    def _search(
        self, model: Classifier, x: Images, y: Labels, options: AttackOptions, place: Place
    ) -> AttackResult:
        memory = options.memory
        shape = (place.total, *x.shape[1:])
        renewed = place.batch == 0 and int(place.epoch) % self.reset == 0
        if renewed or "delta" not in memory or memory["delta"].shape != shape:
            whole = x.new_empty(shape)
            memory["delta"] = self.ball.eps * uniform_like(whole, options.generator).sign()
            memory["momentum"] = torch.zeros_like(whole)
        delta = self.ball.project(memory["delta"][place.images])
        found = self._fgsm_from(delta).run(model, x, y, options)
        grad = found.start_grad
        assert grad is not None
        norm = grad.abs().sum().clamp_min(torch.finfo(grad.dtype).tiny)
        momentum = grad / norm + self.decay * memory["momentum"][place.images]
        memory["delta"][place.images] = self._stepped(x, delta, momentum)
        memory["momentum"][place.images] = momentum
        # the step starts from delta, which the start in [0, 1] may have clipped
        x_adv = (x + self._stepped(x, delta, grad)).clamp(0, 1)
        return replace(found, x_adv=x_adv)

    def _stepped(self, x: Images, delta: Images, direction: Images) -> Images:
        return clip_to_pixels(x, self.ball.project(delta + self.step * direction.sign()))


@dataclass(frozen=True)
class NuAT(SingleStep):
    """Attack of nuclear-norm adversarial training, NuAT (Sriramanan et al., NeurIPS 2021).

    A step from ``x + eps/2 sign U(-1, 1)`` on the cross-entropy; in every second batch plus
    ``weight / B`` times the nuclear norm of ``f(x) - f(x + eta)``, the matrix of a batch of ``B``.

    Args:
        weight: Of the norm, as in the loss.
        ramp_epochs: Epochs over which it rises linearly from 0; 0 for none.
    """

    weight: float = 4.0
    ramp_epochs: float = 0.0

    reads_whole_batch: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges("attacks.NuAT", self)

    @property
    def period(self) -> int:
        return 2

    @property
    def climbs_loss(self) -> bool:
        return False  # not alone

    def _search(
        self, model: Classifier, x: Images, y: Labels, options: AttackOptions, place: Place
    ) -> AttackResult:
        targets = y if options.targets is None else options.targets
        done = min(1.0, place.epoch / self.ramp_epochs) if self.ramp_epochs else 1.0
        weight = done * self.weight if place.batch % 2 == 1 else 0.0

        def goal(model: Classifier, x: Images, _: Labels) -> Gain:
            loss = cross_entropy_to(targets)
            if not weight:
                return loss
            with no_graph():
                clean = model(x).to(x.dtype)

            def gain(logits: Logits) -> PerExample:
                norm: Tensor = torch.linalg.matrix_norm(clean - logits, "nuc")
                return loss(logits) + weight * norm / len(logits)

            return gain

        delta = self.ball.eps / 2 * uniform_like(x, options.generator).sign()
        return self._fgsm_from(delta, goal=goal).run(model, x, y, options)


@dataclass(frozen=True)
class SORA(SingleStep):
    """RS-FGSM of random step sizes, bounded where the loss is curved, SORA (arXiv 2606.00738).

    ``x* = x + eta + a sign grad CE(x + eta)``, eta uniform over the ball, ``a ~ U(0, a*)`` for each
    pixel and channel, not clipped to eps; ``a* = min(alpha, alpha rate / (1 - v))`` with ``v`` the
    mean PertAlign of the batch before (1 before the first).

    Args:
        rate: ``1 - v`` down to which the step has its full size.
    """

    rate: float = 0.02

    published_alpha: ClassVar[float] = 2.0
    reads_pert_align: ClassVar[bool] = True
    bounds = None  # its step is not clipped

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges("attacks.SORA", self)

    def _search(
        self, model: Classifier, x: Images, y: Labels, options: AttackOptions, place: Place
    ) -> AttackResult:
        search = GradientAttack(self.ball, self.step, 1, Uniform())
        found = search.run(model, x, y, options)
        assert found.x_start is not None
        assert found.start_grad is not None
        shares = (1 + uniform_like(x, options.generator)) / 2
        step = self.largest_step(options.memory) * shares * found.start_grad.sign()
        return replace(found, x_adv=(found.x_start + step).clamp(0, 1))

    def largest_step(self, memory: Memory) -> float | Tensor:
        """``a*``, in units of the pixel range."""
        if "pert_align" not in memory:
            return self.step
        bend = (1 - memory["pert_align"]).clamp_min(1e-12)
        share: Tensor = (self.rate / bend).clamp_max(1)
        return self.step * share


def _per_image(values: PerExample) -> Tensor:
    return values[:, None, None, None]
