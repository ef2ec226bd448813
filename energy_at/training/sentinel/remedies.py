"""What a training goes on with after it has lost its robustness, and come back."""

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal, get_args

from energy_at.attacks import Attack, with_alpha
from energy_at.objectives import DER, Objective, Weighted

Remedy = Literal["auto", "der", "beta", "alpha"]


@dataclass(frozen=True)
class Remedies:
    """DER switched on, more of it, or a weaker training attack.

    Attributes:
        remedy: ``der`` switches DER on, ``beta`` raises its weight, ``alpha`` lowers the step size
            of the training attack; ``auto`` is ``beta`` for a training with DER, ``der`` without.
        der: DER as it is switched on.
        factor: Weight or step size change by it, once for each time (``der``: from the second on).
    """

    remedy: Remedy
    der: Weighted
    factor: float = 2.0

    def __post_init__(self) -> None:
        """Refuses a remedy that is none."""
        if self.remedy not in get_args(Remedy):
            known = ", ".join(get_args(Remedy))
            raise ValueError(f"callbacks.sentinel.remedy={self.remedy} is none of {known}")
        if not 1 < self.factor < math.inf:
            raise ValueError(f"callbacks.sentinel.factor={self.factor} must be a number > 1")

    def applied(
        self, objective: Objective, attack: Attack, times: int
    ) -> tuple[Objective, Attack, str]:
        """Objective and attack after so many returns, and what changed, in words.

        Args:
            objective: That the training began with.
            attack: Likewise.
            times: At least 1.

        Raises:
            ValueError: if the remedy does not go with them.
        """
        own = next((n for n, w in objective.terms.items() if isinstance(w.term, DER)), None)
        remedy = ("der" if own is None else "beta") if self.remedy == "auto" else self.remedy
        if remedy == "alpha":
            return (
                objective,
                _weaker(attack, self.factor**-times),
                f"the step size over {self.factor**times:g}",
            )
        if (remedy == "beta") == (own is None):
            has, use = ("no DER", "der") if own is None else ("DER", "beta")
            raise ValueError(
                f"callbacks.sentinel.remedy={remedy}, but the training has {has}: use {use}"
            )
        weighted = self.der if own is None else objective.terms[own]
        growth = self.factor ** (times - (own is None))
        stronger = replace(weighted, weight=growth * weighted.weight)
        terms = {**objective.terms, own or "der": stronger}
        words = f"DER of weight {stronger.weight:g}"
        return Objective(terms, skip_flat=objective.skip_flat), attack, words


def _weaker(attack: Attack, factor: float) -> Attack:
    with suppress(ValueError):
        return with_alpha(attack, factor)
    raise ValueError(
        "callbacks.sentinel.remedy=alpha lowers the step size of the training attack, and "
        f"{type(attack).__name__} has none: use der, or another attack"
    )
