"""Remedies that a rollback applies: DER, more DER, or a weaker training attack."""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

from energy_at.attacks import Attack, with_alpha
from energy_at.core.rules import number, one_of, require
from energy_at.objectives import DER, Objective, Weighted

Remedy = Literal["auto", "der", "beta", "alpha"]


class Treatment(NamedTuple):
    """What a training continues with, and a description of what has changed."""

    objective: Objective
    attack: Attack
    description: str


@dataclass(frozen=True)
class Remedies:
    """Changes of the objective or of the training attack against overfitting.

    Attributes:
        remedy: ``der`` switches DER on, ``beta`` raises its weight, ``alpha`` lowers the step size
            of the training attack; ``auto`` is ``beta`` for a training with DER, ``der`` without.
        der: DER as it is switched on.
        factor: By which weight or step size change at each rollback (``der``: from the second on).

    Raises:
        ValueError: if a value is out of its range.
    """

    remedy: Remedy
    der: Weighted
    factor: float = 2.0

    def __post_init__(self) -> None:
        require("remedy", self.remedy, one_of(*get_args(Remedy)))
        require("factor", self.factor, number(1, above=True))

    def apply(self, objective: Objective, attack: Attack, times: int) -> Treatment:
        """Objective and attack after a number of rollbacks.

        Args:
            objective: That the training began with.
            attack: That the training began with.
            times: Rollbacks, at least 1.

        Raises:
            ValueError: if the remedy does not fit the training.
        """
        own = next((n for n, w in objective.terms.items() if isinstance(w.term, DER)), None)
        remedy = ("der" if own is None else "beta") if self.remedy == "auto" else self.remedy
        if remedy == "alpha":
            divisor = f"step size / {self.factor**times:g}"
            return Treatment(objective, _weaker(attack, self.factor**-times), divisor)
        if (remedy == "beta") == (own is None):
            has, use = ("no DER", "der") if own is None else ("DER", "beta")
            raise ValueError(
                f"callbacks.sentinel.remedy={remedy}, but the training has {has}: use {use}"
            )
        weighted = self.der if own is None else objective.terms[own]
        growth = self.factor ** (times - (own is None))
        stronger = replace(weighted, weight=growth * weighted.weight)
        terms = {**objective.terms, own or "der": stronger}
        description = f"DER of weight {stronger.weight:g}"
        return Treatment(Objective(terms, skip_flat=objective.skip_flat), attack, description)


def _weaker(attack: Attack, factor: float) -> Attack:
    with suppress(ValueError):
        return with_alpha(attack, factor)
    raise ValueError(
        "callbacks.sentinel.remedy=alpha lowers the step size of the training attack, and "
        f"{type(attack).__name__} has none: use der, or another attack"
    )
