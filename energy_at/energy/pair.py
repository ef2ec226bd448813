"""Logits of images and of their adversarial counterparts: what objectives and metrics read."""

from dataclasses import dataclass, replace

from energy_at.core.distributed import Part
from energy_at.core.types import Labels, Logits


@dataclass(frozen=True)
class LogitPair:
    """Logits of clean and of adversarial images, and the labels they share.

    Attributes:
        clean: ``f(x)``.
        adv: ``f(x*)``.
        y: True labels.
        start: ``f(x + eta)`` at the point the attack started from; ``None`` if not requested.
    """

    clean: Logits
    adv: Logits
    y: Labels
    start: Logits | None = None

    def detach(self) -> "LogitPair":
        """The same values without their graphs, safe to keep."""
        start = None if self.start is None else self.start.detach()
        return LogitPair(self.clean.detach(), self.adv.detach(), self.y, start)

    def gathered(self, part: Part) -> "LogitPair":
        """The pair of the whole batch, of which every process has its part."""
        start = None if self.start is None else part.joined(self.start)
        return LogitPair(part.joined(self.clean), part.joined(self.adv), part.joined(self.y), start)

    def from_start(self) -> "LogitPair":
        """The pair with ``x + eta`` in the place of ``x``.

        Raises:
            ValueError: if the pair was made without the logits of its start.
        """
        if self.start is None:
            raise ValueError("this pair has no start logits: the attack does not report its start")
        return replace(self, clean=self.start)
