"""No attack: what standard training trains on."""

from dataclasses import dataclass

from energy_at.attacks.base import AttackResult, Search, Wishes
from energy_at.core.types import Classifier, Images, Labels


@dataclass(frozen=True)
class NoAttack(Search):
    """Leaves every image as it is; no forward pass, no gradient."""

    steps: int = 1  # as a single-step attack: what depends on it takes its simplest form
    starts_clean: bool = False  # it runs no search

    def _searched(self, model: Classifier, x: Images, y: Labels, wishes: Wishes) -> AttackResult:
        return AttackResult(x)

    def scaled(self, factor: float) -> "NoAttack":
        """Itself."""
        return self
