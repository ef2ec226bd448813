"""What every attack takes and returns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from energy_at.shapes import Images, Labels, Logits

Classifier = Callable[[Images], Logits]


@dataclass(frozen=True)
class AttackResult:
    """Adversarial images, and what the search computed on the way.

    Attributes:
        x_adv: Adversarial images, in [0, 1], without a graph.
        start_logits: Logits at the attack's first point ``x + eta``, of the network as the attack
            ran it; with their graph if the caller asked for ``keep_graph``. ``None`` if unknown.
        started_clean: Whether that first point was ``x`` itself.
    """

    x_adv: Images
    start_logits: Logits | None = None
    started_clean: bool = False

    @property
    def clean_logits(self) -> Logits | None:
        """Logits of ``x`` if the search happened to compute them."""
        return self.start_logits if self.started_clean else None


@runtime_checkable
class Attack(Protocol):
    """Searches near ``x`` for images that serve a goal.

    An attack changes nothing of the network: no mode, no gradients of parameters, and, unless it is
    asked to, no running statistics of batch norm.
    """

    @property
    def steps(self) -> int:
        """Gradients taken along one search; 1 makes a single-step attack."""

    @property
    def starts_clean(self) -> bool:
        """Whether the first point of the search is ``x`` itself."""

    def __call__(
        self,
        model: Classifier,
        x: Images,
        y: Labels,
        *,
        keep_graph: bool = False,
        track_stats: bool = False,
        generator: torch.Generator | None = None,
    ) -> AttackResult:
        """Runs the search on one batch.

        Args:
            model: The network, in the mode that it is to be attacked in.
            x: Clean images, in [0, 1].
            y: True labels.
            keep_graph: Keep the graph of ``start_logits``.
            track_stats: Let the forward pass at the first point, and no other, move the running
                statistics of batch norm: it is then a forward pass of the training.
            generator: Source of all noise.
        """

    def scaled(self, factor: float) -> "Attack":
        """The same attack in a ball of ``factor`` times the radius (eps warm-up)."""
