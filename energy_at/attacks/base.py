"""What every attack takes and returns."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from energy_at.core.rng import Noise
from energy_at.core.types import Classifier, Images, Labels, Logits, Targets

Memory = dict[str, Tensor]


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
    def extra_images(self) -> int:
        """Images of its own that the first batch of a period runs."""
        return 0

    @property
    def climbs_loss(self) -> bool:
        """Whether the search raises the cross-entropy of the label: FGSM and PGD, not TRADES."""
        return False

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
        """
        place = place or Place(torch.arange(len(x), device=x.device), len(x))
        memory = {} if memory is None else memory
        options = AttackOptions(keep_graph, track_stats, generator, targets, place, memory)
        return self._run(model, x.detach(), y, options)

    @abstractmethod
    def _run(self, model: Classifier, x: Images, y: Labels, options: AttackOptions) -> AttackResult:
        """Search near ``x``, which has no graph."""

    @abstractmethod
    def scaled(self, factor: float) -> "Attack":
        """The same attack in a ball of ``factor`` times the radius (eps warm-up)."""


@dataclass(frozen=True)
class NoAttack(Attack):
    """Returns every image unchanged, without a forward pass: standard training."""

    steps: int = 1  # as a single-step attack: what depends on it takes its simplest form

    def _run(self, model: Classifier, x: Images, y: Labels, options: AttackOptions) -> AttackResult:
        return AttackResult(x)

    def scaled(self, factor: float) -> "NoAttack":
        return self
