"""Signs of a loss of robustness, each free of the scale of images and energies."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from statistics import fmean

import numpy as np

WINDOW = 5  # validations of a running mean
_DIAGONAL = 2**0.5
_ERRORS = 2


def signs_of(row: Mapping[str, float]) -> tuple[float, float]:
    """AAE share and alignment of a step; without a shift there is no sign of anything."""
    raised = row["train/delta_energy/marginal"] - row["train/delta_energy/joint"]
    shift = row["train/delta_energy/shift_norm"]
    return row["train/aae_share"], raised / (_DIAGONAL * shift) if shift > 0 else 1.0


def parting(marginal: float, shift: float, steps: list[list[float]]) -> float:
    """How far dE(x) of held-out and of training images have parted, from -1 to 1.

    Args:
        marginal: Mean dE(x) of held-out images, nats.
        shift: Their mean shift norm, nats.
        steps: The same two of the last training steps; their medians count.
    """
    trained, shifted = np.median(np.array(steps), axis=0)
    total = shift + float(shifted)
    return (marginal - float(trained)) / total if total > 0 else 0.0


@dataclass
class Rise:
    """How far the running mean of the losses of validations has risen above its best.

    Attributes:
        losses: Of the last validations: those of a running mean.
        best: Lowest of the running means, nats.
    """

    losses: list[float] = field(default_factory=list)
    best: float = inf

    def see(self, loss: float) -> None:
        """One validation more."""
        self.losses = [*self.losses, loss][-WINDOW:]
        if len(self.losses) == WINDOW:
            self.best = min(self.best, fmean(self.losses))

    @property
    def share(self) -> float:
        """Rise since the best, as a part of it; 0 before there is a running mean."""
        if len(self.losses) < WINDOW or self.best <= 0:
            return 0.0
        return fmean(self.losses) / self.best - 1


@dataclass
class Decline:
    """How the running mean of the accuracies of validations falls.

    Attributes:
        accuracies: Of the last validations: those of a running mean, and one before them.
        best: Of the running means.
    """

    accuracies: list[float] = field(default_factory=list)
    best: float = 0.0

    def see(self, accuracy: float) -> None:
        """One validation more."""
        self.accuracies = [*self.accuracies, accuracy][-WINDOW - 1 :]
        if len(self.accuracies) >= WINDOW:
            self.best = max(self.best, fmean(self.accuracies[-WINDOW:]))

    @property
    def by_next(self) -> float:
        """Accuracy lost since the best by the next validation, at the pace of now.

        0 before there are two running means: nothing is known of their pace.
        """
        if len(self.accuracies) <= WINDOW:
            return 0.0
        before, now = fmean(self.accuracies[:-1]), fmean(self.accuracies[1:])
        return self.best - (2 * now - before)

    @property
    def lost(self) -> float:
        """Accuracy lost since the best; 0 before there is a running mean."""
        if len(self.accuracies) < WINDOW:
            return 0.0
        return self.best - fmean(self.accuracies[-WINDOW:])

    def limit(self, least: float, images: int | None) -> float:
        """Accuracy whose loss is a sign of itself: at least two standard errors."""
        return max(least, _ERRORS * self.error(images))

    def error(self, images: int | None) -> float:
        """Standard error of the difference of two running means.

        It is binomial, for images that are right or wrong independently of each other and
        from one validation to the next. As all validations have the same images, most of which are
        right or wrong every time, it is an upper bound. Where the number of images is not known,
        neither is what chance does to their accuracy.
        """
        if images is None:
            return inf
        return float((self.best * (1 - self.best) / images * 2 / WINDOW) ** 0.5)
