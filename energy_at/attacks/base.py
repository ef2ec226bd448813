"""What every attack takes and returns."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, get_args

import torch
from torch import Tensor

from energy_at.attacks.threat import Ball
from energy_at.core.rng import Noise
from energy_at.core.rules import TRUTH, Rule, an, or_null, require
from energy_at.core.types import (
    A_CLASSIFIER,
    Classifier,
    Images,
    Labels,
    Logits,
    Targets,
    kind_of,
    require_images,
    require_indices,
    require_labels,
    require_matrix,
    require_pixels,
)
from energy_at.models.modes import try_on

Memory = dict[str, Tensor]
TOLERANCE = 1e-5  # of a distance and of a pixel, in units of the pixel range: roundings of fp32

_NOISE = or_null(an(get_args(Noise), "a torch.Generator"))
_MEMORY = or_null(an(dict, "a dictionary"))
_WHOLE = Rule(
    "of float32 or float64: in others an eps of 8/255 becomes 8.96/255",
    lambda dtype: dtype in (torch.float32, torch.float64),
)


def require_bounded(low: float, high: float, excess: float, *, place: str = "") -> None:
    """Raises ``ValueError`` for adversarial images outside [0, 1], or the ball of their attack.

    Args:
        low: Lowest pixel.
        high: Highest pixel.
        excess: Largest distance of a pixel to the ball.
        place: Where that was.
    """
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise ValueError(
            f"adversarial images must lie in [0, 1], got [{low:g}, {high:g}]{place}: the attack "
            "must clip them"
        )
    if excess > TOLERANCE:
        raise ValueError(
            f"adversarial images must lie in the ball of the attack, but a pixel is {excess:.3g} "
            f"outside{place}: project them, or give the attack bounds = None if it is meant"
        )


@dataclass(frozen=True)
class AttackResult:
    """Adversarial images, and what the search computed on the way.

    Attributes:
        x_adv: Adversarial images, in [0, 1], without a graph.
        x_start: The attack's first point ``x + eta``; ``None`` if it has none to report.
        start_logits: Logits at ``x_start``, of the network as the attack ran it; with their graph
            if the caller asked for ``keep_graph``.
        start_grad: Gradient of the cross-entropy to the label, or to its smoothed targets, at
            ``x_start``, up to a positive factor; ``None`` if the goal was another.
        started_clean: Whether ``x_start`` was ``x`` itself.
    """

    x_adv: Images
    x_start: Images | None = None
    start_logits: Logits | None = None
    start_grad: Images | None = None
    started_clean: bool = False

    @property
    def clean_logits(self) -> Logits | None:
        """Logits of ``x`` if the search happened to compute them."""
        return self.start_logits if self.started_clean else None

    @property
    def clean_grad(self) -> Images | None:
        """Gradient of the cross-entropy at ``x`` if the search happened to compute it."""
        return self.start_grad if self.started_clean else None


@dataclass(frozen=True)
class Place:
    """Where a batch stands in a training, for attacks that change in its course.

    Attributes:
        images: Positions of the images in the training set.
        total: Number of its images.
        epoch: Epochs done, fractional; those that a rollback repeats count once.
        batch: Number of the batch in its epoch.
    """

    images: Labels
    total: int
    epoch: float = 0.0
    batch: int = 0


@dataclass(frozen=True)
class AttackOptions:
    """Options of a call; see ``Attack.__call__``."""

    keep_graph: bool = False
    track_stats: bool = False
    generator: Noise | None = None
    targets: Targets | None = None
    place: Place | None = None
    memory: Memory = field(default_factory=dict)


_RESULT = an(AttackResult, "an AttackResult(x_adv)")


class Attack(ABC):
    """Searches near ``x`` for images that serve a goal.

    An attack changes nothing of the network: no mode, no gradients of parameters, and, unless it is
    asked to, no running statistics of batch norm.
    """

    steps: int
    """Gradients taken along one search; 1 makes a single-step attack."""

    reads_place: ClassVar[bool] = False
    """Whether it needs the positions of its images in the training set."""

    reads_pert_align: ClassVar[bool] = False
    """Whether it reads ``memory["pert_align"]``, the mean PertAlign of the batch before."""

    reads_whole_batch: ClassVar[bool] = False
    """Whether it needs all images of the batch, which no other process then may share."""

    searches_together: ClassVar[bool] = False
    """Whether it draws noise for all images of a call together: an image depends on the others."""

    @property
    def period(self) -> int:
        """Batches after which the work of a call repeats."""
        return 1

    @property
    def bounds(self) -> Ball | None:
        """The ball that trained images are held to; ``None`` if the method leaves it."""
        return getattr(self, "ball", None)

    @property
    def extra_images(self) -> int:
        """Images of its own that the first batch of a period runs."""
        return 0

    @property
    def climbs_loss(self) -> bool:
        """Whether the search raises the cross-entropy of the label: FGSM and PGD, not TRADES."""
        return False

    def memory_shapes(self, total: int, image: Sequence[int]) -> dict[str, Sequence[int]]:
        """Shapes of what it keeps after a batch, for ``total`` training images of a shape."""
        return {"pert_align": ()} if self.reads_pert_align else {}

    @property
    def passes(self) -> float:
        """Forward and backward passes of an image that a search takes at most."""
        return self.steps

    @property
    def starts_clean(self) -> bool:
        """Whether the first point of the search is ``x`` itself."""
        return False

    def __call__(
        self,
        model: Classifier,
        x: Images,
        y: Labels,
        *,
        keep_graph: bool = False,
        track_stats: bool = False,
        generator: Noise | None = None,
        targets: Targets | None = None,
        place: Place | None = None,
        memory: Memory | None = None,
    ) -> AttackResult:
        """Runs the search on one batch, against the network in the mode that it is in.

        Network, images and labels are checked first, which waits for the device: see ``run``.

        Args:
            model: The network.
            x: Clean images, in [0, 1].
            y: True labels.
            keep_graph: Keep the graph of ``start_logits``.
            track_stats: Let the forward pass at the first point, and no other, move the running
                statistics of batch norm: it is then a forward pass of the training.
            generator: Source of all noise.
            targets: Smoothed labels for the cross-entropy that is raised; ``y`` itself if left out.
            place: Where the batch stands in a training; the first batch of one that has no other
                images if left out.
            memory: What the attack keeps from batch to batch. It writes into it, and the caller
                keeps it in checkpoints; left out, nothing is remembered.

        Raises:
            ValueError: if an argument is not what it must be.
        """
        require(A_CLASSIFIER, model=model)
        require_images(x)
        require_indices(y, len(x))
        y = y.long()
        require(_WHOLE, images=x.dtype)
        require(TRUTH, keep_graph=keep_graph, track_stats=track_stats)
        require(_NOISE, generator=generator)
        require(_MEMORY, memory=memory)
        if len(x):
            low, high, first, last = torch.stack([*x.aminmax(), *y.aminmax()]).tolist()
            require_pixels(low, high)
            classes = try_on(model, x[:2]).shape[1]
            require_labels(int(first), int(last), classes)
            if targets is not None:
                require_matrix(targets, "targets", torch.Size((len(x), classes)))
        memory = {} if memory is None else memory
        options = AttackOptions(keep_graph, track_stats, generator, targets, place, memory)
        found = self.run(model, x, y, options)
        if len(x):
            require_bounded(*self.extremes(x.detach(), found.x_adv).tolist())
        return found

    def extremes(self, x: Images, x_adv: Images) -> Tensor:
        """Lowest and highest pixel of ``x_adv``, and the largest distance of one to the ball."""
        delta, bounds = x_adv - x, self.bounds
        beyond = delta * 0 if bounds is None else bounds.project(delta) - delta
        return torch.stack([*x_adv.aminmax(), beyond.abs().max()])

    def run(
        self,
        model: Classifier,
        x: Images,
        y: Labels,
        options: AttackOptions | None = None,
    ) -> AttackResult:
        """A call without its checks, for images, labels and networks that have been checked.

        Raises:
            ValueError: if the attack changes ``x`` in place, or returns something else.
        """
        options = options or AttackOptions()
        if options.place is None:
            whole = Place(torch.arange(len(x), device=x.device), len(x))
            options = replace(options, place=whole)
        x, who = x.detach(), type(self).__name__
        version = None if x.is_inference() else x._version
        found = self._run(model, x, y, options)
        if version is not None and x._version != version:
            raise ValueError(f"{who} changes the images in place: let it copy them first")
        require(_RESULT, **{f"what {who} returns": found})
        images = found.x_adv
        if not isinstance(images, Tensor) or images.shape != x.shape or images.dtype != x.dtype:
            raise ValueError(f"{who} must return images, {kind_of(x)}, got {kind_of(images)}")
        return found if not images.requires_grad else replace(found, x_adv=images.detach())

    @abstractmethod
    def _run(self, model: Classifier, x: Images, y: Labels, options: AttackOptions) -> AttackResult:
        """Search near ``x``, which has no graph."""

    @abstractmethod
    def scaled(self, factor: float) -> "Attack":
        """The same attack in a ball of ``factor`` times the radius (eps warm-up)."""


AN_ATTACK = an(Attack, "an attack, such as pgd(Linf(8 / 255))")


@dataclass(frozen=True)
class NoAttack(Attack):
    """Returns every image unchanged, without a forward pass: standard training."""

    steps: int = 1  # as a single-step attack: what depends on it takes its simplest form

    def _run(self, model: Classifier, x: Images, y: Labels, options: AttackOptions) -> AttackResult:
        return AttackResult(x)

    def scaled(self, factor: float) -> "NoAttack":
        return self
