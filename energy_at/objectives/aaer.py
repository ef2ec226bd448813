"""AAER, regularization of abnormal adversarial examples (Lin et al., NeurIPS 2023)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from energy_at.core.ranges import require_ranges
from energy_at.core.rules import require
from energy_at.core.types import PerExample, Scalar
from energy_at.energy.energies import delta_joint, delta_marginal, is_abnormal
from energy_at.energy.pair import A_PAIR, LogitPair
from energy_at.objectives.objective import Trait


@dataclass(frozen=True)
class AAER:
    """AAER, regularization of abnormal adversarial examples (Lin et al., NeurIPS 2023).

    The batch mean is ``(n_AAE / B) (ce mean_AAE[CE(x + eta) - CE(x*)] + logits max(V_AAE - V_NAE,
    0))`` with ``V`` the mean of ``||f(x + eta) - f(x*)||^2`` over abnormal (``CE(x*) < CE(x +
    eta)``) and over normal examples. ``V_NAE`` is the level to come down to and carries no
    gradient; a batch without normal examples has none, and the second part is 0 there.

    This is the published formula. The published code detaches both cross-entropies, so that its
    first part trains nothing, and the start, which ``detach_start`` does here too.

    Args:
        ce: Weight of the drop of the loss, lambda_2.
        logits: Weight of the variation of the logits, lambda_3. (lambda_1 is the term's weight.)
        detach_start: Whether the gradient reaches the adversarial branch only, which spares the
            backward pass through the attack's start.
    """

    ce: float = 2.5
    logits: float = 1.5
    detach_start: bool = False

    def __post_init__(self) -> None:
        require_ranges("objectives.AAER", self)

    @property
    def traits(self) -> Trait:
        trains = Trait.NONE if self.detach_start else Trait.TRAINS_START
        return Trait.FLAT_AT_ZERO | Trait.READS_START | trains

    def __call__(self, pair: LogitPair) -> PerExample:
        require(A_PAIR, pair=pair)
        pair = pair.from_start()
        if self.detach_start:
            pair = LogitPair(pair.clean.detach(), pair.adv, pair.y)
        abnormal = is_abnormal(pair)
        drop = delta_joint(pair) - delta_marginal(pair)
        variation = (pair.clean - pair.adv).square().sum(1)
        excess = _mean_over(variation, abnormal) - _mean_over(variation, ~abnormal).detach()
        penalty = self.ce * drop + self.logits * F.relu(excess.nan_to_num(0.0))
        return torch.where(abnormal, penalty, torch.zeros_like(penalty))


def _mean_over(values: PerExample, mask: Bool[Tensor, " batch"]) -> Scalar:
    """The mean over a mask; NaN, with a gradient of 0, if the mask is empty."""
    total = torch.where(mask, values, torch.zeros_like(values)).sum()
    count = mask.sum()
    return torch.where(count > 0, total / count.clamp_min(1), torch.nan)
