"""Logits of images and of their adversarial counterparts: what objectives and metrics read."""

from dataclasses import dataclass, replace

from energy_at.core.distributed import Part
from energy_at.core.rules import an
from energy_at.core.types import (
    Labels,
    Logits,
    Targets,
    require_indices,
    require_matrix,
)


@dataclass(frozen=True)
class LogitPair:
    """Logits of clean and of adversarial images, and the labels they share.

    Attributes:
        clean: ``f(x)``.
        adv: ``f(x*)``.
        y: True labels.
        start: ``f(x + eta)`` at the point the attack started from; ``None`` if not requested.
        smoothed: Smoothed labels, which cross-entropies are trained with; ``None``: ``y`` itself.

    Raises:
        ValueError: if shapes or types disagree.
    """

    clean: Logits
    adv: Logits
    y: Labels
    start: Logits | None = None
    smoothed: Targets | None = None

    def __post_init__(self) -> None:
        require_matrix(self.clean, "clean")
        require_matrix(self.adv, "adv", self.clean.shape)
        for what, value in {"start": self.start, "smoothed": self.smoothed}.items():
            if value is not None:
                require_matrix(value, what, self.clean.shape)
        require_indices(self.y, len(self.clean))
        object.__setattr__(self, "y", self.y.long())

    @property
    def targets(self) -> Labels | Targets:
        """What cross-entropies are trained with."""
        return self.y if self.smoothed is None else self.smoothed

    def detach(self) -> "LogitPair":
        """The same values without their graphs, safe to keep."""
        start = None if self.start is None else self.start.detach()
        return LogitPair(self.clean.detach(), self.adv.detach(), self.y, start, self.smoothed)

    def gathered(self, part: Part) -> "LogitPair":
        """The pair of the whole batch, of which every process has its part."""
        start = None if self.start is None else part.joined(self.start)
        smoothed = None if self.smoothed is None else part.joined(self.smoothed)
        clean, adv, y = (part.joined(own) for own in (self.clean, self.adv, self.y))
        return LogitPair(clean, adv, y, start, smoothed)

    def from_start(self) -> "LogitPair":
        """The pair with ``x + eta`` in the place of ``x``.

        Raises:
            ValueError: if the pair was made without the logits of its start.
        """
        if self.start is None:
            raise ValueError("this pair has no start logits: the attack does not report its start")
        return replace(self, clean=self.start)


A_PAIR = an(LogitPair, "a LogitPair(clean, adv, y)")
