"""Base losses of adversarial training."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from energy_at.core.types import PerExample
from energy_at.energy.energies import marginal_energy
from energy_at.energy.pair import LogitPair
from energy_at.objectives.objective import Objective, Probe, Term, Trait

FITS = Trait.READS_CLEAN | Trait.TRAINS_CLEAN | Trait.FITS_CLEAN


@dataclass(frozen=True)
class CleanCrossEntropy:
    """``CE(x, y)``."""

    traits: ClassVar[Trait] = FITS

    def __call__(self, pair: LogitPair) -> PerExample:
        return F.cross_entropy(pair.clean, pair.y, reduction="none")


@dataclass(frozen=True)
class AdversarialCrossEntropy:
    """``CE(x*, y)`` (Madry et al., 2018, eq. 2.1)."""

    traits: ClassVar[Trait] = Trait.NONE

    def __call__(self, pair: LogitPair) -> PerExample:
        return F.cross_entropy(pair.adv, pair.y, reduction="none")


@dataclass(frozen=True)
class TradesKL:
    """``KL(p(.|x) || p(.|x*))``, with gradients through both (Zhang et al., 2019, eq. 5).

    In energies: ``E_{k ~ p(.|x)}[E(x*, k) - E(x, k)] + dE(x)`` (arXiv 2505.22486).
    """

    traits: ClassVar[Trait] = FITS

    def __call__(self, pair: LogitPair) -> PerExample:
        log_p, log_q = pair.clean.log_softmax(1), pair.adv.log_softmax(1)
        return F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1)


@dataclass(frozen=True)
class BoostedCrossEntropy:
    """MART's ``BCE(x*) = -log p_y(x*) - log(1 - max_{k != y} p_k(x*))`` (Wang et al., 2020, eq. 7).

    The published code adds 1e-4 inside the second logarithm; here it is computed without
    cancellation instead.
    """

    traits: ClassVar[Trait] = Trait.NONE

    def __call__(self, pair: LogitPair) -> PerExample:
        logits = pair.adv
        own = F.one_hot(pair.y, logits.shape[1]).bool()
        runner_up = logits.masked_fill(own, -torch.inf).argmax(1, keepdim=True)
        others = logits.scatter(1, runner_up, -torch.inf)
        margin = logits.logsumexp(1) - others.logsumexp(1)
        return F.cross_entropy(logits, pair.y, reduction="none") + margin


@dataclass(frozen=True)
class MisclassifiedKL:
    """MART's ``KL(p(.|x) || p(.|x*)) (1 - p_y(x))`` (Wang et al., 2020, eq. 9).

    Examples that are misclassified count more. As published, the gradient reaches the weight too.
    """

    traits: ClassVar[Trait] = FITS

    def __call__(self, pair: LogitPair) -> PerExample:
        p_y = pair.clean.softmax(1).gather(1, pair.y[:, None]).squeeze(1)
        return TradesKL()(pair) * (1 - p_y)


@dataclass(frozen=True)
class EnergyWeighted:
    """A term weighted by ``1 / log(1 + exp|E(x)|)``, WEAT (Mirza et al., 2024, arXiv 2407.06315).

    Examples whose energy lies near 0 count more. The weight carries no gradient.

    Args:
        term: What is weighted.
    """

    term: Term

    @property
    def traits(self) -> Trait:
        return self.term.traits | Trait.READS_CLEAN

    def __call__(self, pair: LogitPair) -> PerExample:
        weight = 1 / F.softplus(marginal_energy(pair.clean.detach()).abs())
        return weight * self.term(pair)


def fits_adv_alone(objective: Objective) -> bool:
    """Whether the gradient of an objective at ``x*`` is that of ``CE(x*, y)``, up to a factor."""
    terms = [weighted.term for weighted in objective.terms.values()]
    of_adv = [term for term in terms if not isinstance(term, CleanCrossEntropy | Probe)]
    return bool(of_adv) and all(isinstance(term, AdversarialCrossEntropy) for term in of_adv)
