"""What an analysis asks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from energy_at.attacks import Attack, pgd
from energy_at.attacks.registry import FROM_LIBRARY, LABELS, named_attack
from energy_at.attacks.threat import Ball, Linf

FACTORS = (0.25, 0.5, 1.0, 1.5, 2.0)  # radii of the sweep, in units of eps
NORMS = {"linf": "L-inf", "l2": "L2"}
LOOPS = ("pgd", "trades", "targeted", "cw")  # attacks that ``steps`` belongs to


@dataclass(frozen=True)
class Plan:
    """What to measure, and on which images.

    Attributes:
        norm: ``linf`` or ``l2``.
        eps: Radius, as it was written.
        ball: Threat model of the attacks.
        balls: Those of the sweep over radii.
        names: Of the attacks.
        steps: Of PGD, TRADES, CW and targeted PGD.
        iterations: Of APGD and FAB.
        queries: Of Square.
        split: ``test``, ``val`` or ``train``.
        subset: At most this many images; ``None`` for all.
        subset_seed: Draws them; ``None`` takes the first ones.
        seed: Of the noise of the attacks.
    """

    norm: str
    eps: str
    ball: Ball
    balls: Sequence[Ball]
    names: Sequence[str]
    steps: int = 20
    iterations: int = 100
    queries: int = 5000
    split: str = "test"
    subset: int | None = 1000
    subset_seed: int | None = 0
    seed: int = 0

    @cached_property
    def attacks(self) -> dict[str, Attack]:
        """The attacks by name.

        Raises:
            ValueError: if there is no such attack.
            ImportError: if one needs a library that is not installed.
        """
        return {name: named_attack(name, self.ball, **self._settings(name)) for name in self.names}

    @property
    def labels(self) -> dict[str, str]:
        """The attacks as they are written: ``PGD-20``."""
        return {
            name: f"{LABELS[name]}-{self.steps}" if name in LOOPS else LABELS[name]
            for name in self.names
        }

    @property
    def norm_text(self) -> str:
        """The norm as it is written: ``L-inf``."""
        return NORMS[self.norm]

    @property
    def sweep_label(self) -> str:
        """The attack of the sweep: ``PGD-20``."""
        return f"{LABELS['pgd']}-{self.steps}"

    @property
    def sweep(self) -> dict[float, Attack]:
        """PGD at each radius of the sweep."""
        return {ball.eps: pgd(ball, steps=self.steps) for ball in self.balls}

    def _settings(self, name: str) -> Mapping[str, int | str]:
        if name in LOOPS:
            return {"steps": self.steps}
        if name not in FROM_LIBRARY:
            return {}
        if name == "autoattack":
            return {"steps": self.iterations, "queries": self.queries}
        return {"steps": self.iterations, "queries": self.queries, "keeps": "worst"}


def radii_around(ball: Ball) -> list[Ball]:
    """``FACTORS`` times the ball, as far as there are such perturbations."""
    most = 1 if isinstance(ball, Linf) else float("inf")
    return [ball.scaled(factor) for factor in FACTORS if factor * ball.eps <= most]
