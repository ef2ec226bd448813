"""No attack: what standard training trains on."""

from dataclasses import dataclass

from energy_at.attacks.base import AttackResult
from energy_at.noise import Noise
from energy_at.shapes import Classifier, Images, Labels


@dataclass(frozen=True)
class Unattacked:
    """Leaves every image as it is; no forward pass, no gradient."""

    steps: int = 1  # as a single-step attack: what depends on it takes its simplest form
    starts_clean: bool = False  # it runs no search

    def __call__(
        self,
        model: Classifier,
        x: Images,
        y: Labels,
        *,
        keep_graph: bool = False,
        track_stats: bool = False,
        generator: Noise | None = None,
    ) -> AttackResult:
        """The images."""
        return AttackResult(x.detach())

    def scaled(self, factor: float) -> "Unattacked":
        """Itself."""
        return self
