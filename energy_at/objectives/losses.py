"""Base losses of adversarial training."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F

from energy_at.objectives.base import Trait
from energy_at.pairs import LogitPair
from energy_at.shapes import PerExample


@dataclass(frozen=True)
class CleanCrossEntropy:
    """``CE(x, y)``."""

    traits: ClassVar[Trait] = Trait.READS_CLEAN | Trait.TRAINS_CLEAN | Trait.FITS_CLEAN

    def __call__(self, pair: LogitPair) -> PerExample:
        """The loss of each example, in nats."""
        return F.cross_entropy(pair.clean, pair.y, reduction="none")


@dataclass(frozen=True)
class AdversarialCrossEntropy:
    """``CE(x*, y)`` (Madry et al., 2018, eq. 2.1)."""

    traits: ClassVar[Trait] = Trait.NONE

    def __call__(self, pair: LogitPair) -> PerExample:
        """The loss of each example, in nats."""
        return F.cross_entropy(pair.adv, pair.y, reduction="none")


@dataclass(frozen=True)
class TradesKL:
    """``KL(p(.|x) || p(.|x*))``, with gradients through both (Zhang et al., 2019, eq. 5).

    In energies: ``E_{k ~ p(.|x)}[E(x*, k) - E(x, k)] + dE(x)`` (arXiv 2505.22486).
    """

    traits: ClassVar[Trait] = Trait.READS_CLEAN | Trait.TRAINS_CLEAN

    def __call__(self, pair: LogitPair) -> PerExample:
        """The divergence of each example, in nats."""
        log_p, log_q = pair.clean.log_softmax(1), pair.adv.log_softmax(1)
        return F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1)
