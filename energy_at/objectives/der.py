"""DER, the Delta Energy Regularizer (Mirza et al., arXiv 2505.22486)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from energy_at.core.ranges import Reference, Samples, require_ranges
from energy_at.core.rules import require
from energy_at.core.types import PerExample
from energy_at.energy.energies import is_abnormal, shift_norm
from energy_at.energy.pair import A_PAIR, LogitPair
from energy_at.objectives.objective import Trait


@dataclass(frozen=True)
class DER:
    """DER, the Delta Energy Regularizer (Mirza et al., arXiv 2505.22486).

    ``max(||[dE(x), dE(x, y)]||_2 - gamma, 0)`` of each example, in nats. Single-step training
    applies it to abnormal examples only (``CE(x*) < CE(x)``; the mask carries no gradient),
    multi-step training to all.

    Args:
        samples: ``"abnormal"`` or ``"all"``.
        gamma: Shift that goes unpunished, in nats.
        reference: What ``x*`` is compared with: the ``"clean"`` image, or the attack's ``"start"``
            ``x + eta``, whose logits the attack has computed anyway.
        detach_clean: Whether the gradient reaches the adversarial branch only.
    """

    samples: Samples
    gamma: float = 0.0
    reference: Reference = "clean"
    detach_clean: bool = False

    def __post_init__(self) -> None:
        require_ranges("objectives.DER", self)

    @property
    def traits(self) -> Trait:
        if self.reference == "start":
            reads, trains = Trait.READS_START, Trait.TRAINS_START
        else:
            reads, trains = Trait.READS_CLEAN, Trait.TRAINS_CLEAN
        return Trait.FLAT_AT_ZERO | reads | (Trait.NONE if self.detach_clean else trains)

    def __call__(self, pair: LogitPair) -> PerExample:
        require(A_PAIR, pair=pair)
        if self.reference == "start":
            pair = pair.from_start()
        if self.detach_clean:
            pair = LogitPair(pair.clean.detach(), pair.adv, pair.y)
        penalty = F.relu(shift_norm(pair) - self.gamma)
        if self.samples == "all":
            return penalty
        return torch.where(is_abnormal(pair), penalty, torch.zeros_like(penalty))
