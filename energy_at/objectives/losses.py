"""Base losses of adversarial training."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from energy_at.core.ranges import require_ranges
from energy_at.core.rng import Noise, uniform_like
from energy_at.core.rules import require
from energy_at.core.types import (
    Labels,
    Logits,
    PerExample,
    Scalar,
    Targets,
    labels_of,
    require_indices,
)
from energy_at.energy.energies import marginal_energy
from energy_at.energy.pair import A_PAIR, LogitPair
from energy_at.objectives.objective import (
    A_TERM,
    AN_OBJECTIVE,
    Objective,
    Probe,
    Term,
    Trait,
    traits_of,
)

FITS = Trait.READS_CLEAN | Trait.TRAINS_CLEAN | Trait.FITS_CLEAN
FROM_START = Trait.READS_START | Trait.TRAINS_START


@dataclass(frozen=True)
class LabelSmoothing:
    """Labels that give a share of their probability away (Szegedy et al., 2016).

    Args:
        share: The share, in [0, 1).
        classes: Number of classes.
        spread: ``"uniform"``: evenly over all classes, as PyTorch does it; ``"random"``: over the
            other classes, by independent U(0, 1) scaled to the share (LIET, Pan et al., 2025).
    """

    share: float
    classes: int
    spread: str = "uniform"

    def __post_init__(self) -> None:
        require_ranges("objectives.LabelSmoothing", self)

    def __call__(self, y: Labels, noise: Noise | None = None) -> Targets:
        n = y.shape[0] if isinstance(y, Tensor) and y.ndim else 0
        require_indices(y, n)
        with labels_of(y, self.classes):
            own = F.one_hot(y.long(), self.classes).float()
        if self.spread == "uniform":
            return torch.lerp(own, torch.full_like(own, 1 / self.classes), self.share)
        drawn = (1 + uniform_like(own[:, :, None, None], noise).flatten(1)) / 2 * (1 - own)
        return (1 - self.share) * own + self.share * drawn / drawn.sum(1, keepdim=True)


@dataclass(frozen=True)
class CleanCrossEntropy:
    """``CE(x, y)``."""

    traits: ClassVar[Trait] = FITS

    def __call__(self, pair: LogitPair) -> PerExample:
        require(A_PAIR, pair=pair)
        return F.cross_entropy(pair.clean, pair.targets, reduction="none")


@dataclass(frozen=True)
class AdversarialCrossEntropy:
    """``CE(x*, y)`` (Madry et al., 2018, eq. 2.1)."""

    traits: ClassVar[Trait] = Trait.NONE

    def __call__(self, pair: LogitPair) -> PerExample:
        require(A_PAIR, pair=pair)
        return F.cross_entropy(pair.adv, pair.targets, reduction="none")


@dataclass(frozen=True)
class TradesKL:
    """``KL(p(.|x) || p(.|x*))``, with gradients through both (Zhang et al., 2019, eq. 5).

    In energies: ``E_{k ~ p(.|x)}[E(x*, k) - E(x, k)] + dE(x)`` (arXiv 2505.22486).
    """

    traits: ClassVar[Trait] = FITS

    def __call__(self, pair: LogitPair) -> PerExample:
        require(A_PAIR, pair=pair)
        return _kl(pair.clean.log_softmax(1), pair.adv.log_softmax(1))


@dataclass(frozen=True)
class BoostedCrossEntropy:
    """MART's ``BCE(x*) = -log p_y(x*) - log(1 - max_{k != y} p_k(x*))`` (Wang et al., 2020, eq. 7).

    The published code adds 1e-4 inside the second logarithm; here it is computed without
    cancellation instead.
    """

    traits: ClassVar[Trait] = Trait.NONE

    def __call__(self, pair: LogitPair) -> PerExample:
        require(A_PAIR, pair=pair)
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
        require(A_PAIR, pair=pair)
        p_y = pair.clean.softmax(1).gather(1, pair.y[:, None]).squeeze(1)
        return TradesKL()(pair) * (1 - p_y)


@dataclass(frozen=True)
class JensenShannon:
    """``JS(p(.|x + eta), p(.|x*))`` in nats, LIET's consistency (Pan et al., ICCV 2025)."""

    traits: ClassVar[Trait] = FROM_START

    def __call__(self, pair: LogitPair) -> PerExample:
        require(A_PAIR, pair=pair)
        log_p, log_q = pair.from_start().clean.log_softmax(1), pair.adv.log_softmax(1)
        log_m = torch.logaddexp(log_p, log_q) - math.log(2)
        return (_kl(log_p, log_m) + _kl(log_q, log_m)) / 2


@dataclass(frozen=True)
class LogitDistance:
    """Mean over the classes of ``(f(x*) - f(x + eta))^2``, FGSM-PGI's (Jia et al., ECCV 2022)."""

    traits: ClassVar[Trait] = FROM_START

    def __call__(self, pair: LogitPair) -> PerExample:
        require(A_PAIR, pair=pair)
        return (pair.adv - pair.from_start().clean).square().mean(1)


@dataclass(frozen=True)
class NuclearNorm:
    """``|f(x) - f(x*)|_nuclear / B`` of the logits of a batch, NuAT (Sriramanan et al., 2021).

    It is a property of the batch, so every example has its value.
    """

    traits: ClassVar[Trait] = FITS

    def __call__(self, pair: LogitPair) -> PerExample:
        require(A_PAIR, pair=pair)
        norm: Scalar = torch.linalg.matrix_norm(pair.clean - pair.adv, "nuc")
        return (norm / len(pair.y)).expand(len(pair.y))


@dataclass(frozen=True)
class EnergyWeighted:
    """A term weighted by ``1 / log(1 + exp|E(x)|)``, WEAT (Mirza et al., 2024, arXiv 2407.06315).

    Examples whose energy lies near 0 count more. The weight carries no gradient.

    Args:
        term: What is weighted.
    """

    term: Term

    def __post_init__(self) -> None:
        require(A_TERM, term=self.term)

    @property
    def traits(self) -> Trait:
        return traits_of(self.term) | Trait.READS_CLEAN

    def __call__(self, pair: LogitPair) -> PerExample:
        require(A_PAIR, pair=pair)
        weight = 1 / F.softplus(marginal_energy(pair.clean.detach()).abs())
        return weight * self.term(pair)


def _kl(log_p: Logits, log_q: Logits) -> PerExample:
    """``KL(p || q)`` in nats."""
    return F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1)


def fits_adv_alone(objective: Objective) -> bool:
    """Whether the gradient of an objective at ``x*`` is that of ``CE(x*, y)``, up to a factor."""
    require(AN_OBJECTIVE, objective=objective)
    terms = [weighted.term for weighted in objective.terms.values()]
    of_adv = [term for term in terms if not isinstance(term, CleanCrossEntropy | Probe)]
    return bool(of_adv) and all(isinstance(term, AdversarialCrossEntropy) for term in of_adv)
