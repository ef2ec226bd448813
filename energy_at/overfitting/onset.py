"""Whether a training kept its robustness, and when it lost it, read from its validations."""

from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc  # all of scipy.stats takes a second more to import

from energy_at.overfitting.alarms import PGD_ACCURACY, Kind, Rows, find_column
from energy_at.overfitting.signals import WINDOW, Floats, running_means

MARGIN = 0.03  # least accuracy drop of robust overfitting
_LOST, _REGAINED = 0.5, 0.7  # share of the best accuracy: a collapsed run that wavers stays so
_LEVEL = 0.01  # of the test against chance
_BENDS = 1.652  # median |a - 2 b + c| of normal draws, in standard deviations


@dataclass(frozen=True)
class RunStatus:
    """Whether a training kept its robustness.

    Attributes:
        kind: ``robust``; ``collapsed``, catastrophically overfitted, to its end; ``overfitted``,
            robustly; ``not robust``, if it never exceeded chance; ``not logged``, if it logged no
            validation.
        step: Optimizer step at which it lost its robustness; ``None`` if it did not.
    """

    kind: Literal["robust", "collapsed", "overfitted", "not robust", "not logged"]
    step: int | None = None

    @property
    def onsets(self) -> dict[Kind, int]:
        """Step of the onset, as ``CO`` or ``RO``; empty for the other kinds."""
        kinds: dict[str, Kind] = {"collapsed": "CO", "overfitted": "RO"}
        return {} if self.step is None else {kinds[self.kind]: self.step}

    def __str__(self) -> str:
        return self.kind if self.step is None else f"{self.kind} at step {self.step}"

    def is_result(self, step: float = inf) -> bool:
        """Whether the accuracies of a checkpoint, of ``step`` or the last one, are a result.

        One from before a collapse is a result; a run that never was robust has none.
        """
        if self.kind == "collapsed":
            return self.step is not None and step < self.step
        return self.kind != "not robust"


def status_of(
    validations: Rows, images: int, chance: float, *, single_step: bool = True
) -> RunStatus:
    """Status of a training that has finished, or is running, by its held-out images.

    A run has collapsed if, up to its end, its PGD accuracy has fallen below half its best so far
    and is not back at 70 % of it, or both its PGD and its clean accuracy are at chance.
    Catastrophic overfitting is that of single-step attacks (Wong et al., 2020): one with a
    multi-step attack that fell so has overfitted robustly, and so has any run whose mean
    over five validations of its PGD accuracy ends below its best by 0.03, and by four standard
    errors of the difference of two such means, estimated from the median second difference of
    validations. The onset is the highest accuracy within the best window.

    Args:
        validations: Rows with ``step``, accuracy under PGD and, if known, ``val/acc/clean``.
        images: Of a validation.
        chance: Share of the most frequent class among them, ``1 / classes`` if balanced.
        single_step: Whether the training attack has one step.
    """
    rows = [row for row in validations if find_column(row, PGD_ACCURACY) in row]
    if not rows:
        return RunStatus("not logged")
    pgd = np.array([row[find_column(row, PGD_ACCURACY)] for row in rows])
    clean = np.array([row.get("val/acc/clean", 1.0) for row in rows])
    by_chance = is_chance(pgd, images, chance)
    if by_chance.all():
        return RunStatus("not robust")
    fallen = _fallen(pgd)
    dead = by_chance & is_chance(clean, images, chance)
    for lost in (fallen & single_step, dead):
        if lost[-1]:
            onset = np.flatnonzero(np.append(True, ~lost))[-1]  # since when all are lost
            return RunStatus("collapsed", int(rows[onset]["step"]))
    begin = _overfitting(pgd)
    if begin is None and fallen[-1]:
        begin = int(np.argmax(pgd))
    if begin is not None:
        return RunStatus("overfitted", int(rows[begin]["step"]))
    return RunStatus("robust")


def is_chance(accuracy: Floats | float, images: int, chance: float) -> NDArray[np.bool_]:
    """Whether predictions that are independent of the image could have this accuracy.

    One-sided binomial test at 1 %: at 10 classes and 500 images an accuracy up to 13.2 % is chance,
    at 200 classes one up to 1.4 %. A constant prediction, of accuracy ``chance``, always is.
    """
    correct = np.round(np.asarray(accuracy) * images)
    return np.asarray(bdtrc(correct - 1, images, chance) >= _LEVEL)


def _fallen(accuracies: Floats) -> NDArray[np.bool_]:
    """Where it lies below half its best so far, and from there on below 70 % of it."""
    fallen, below = [], False
    for accuracy, best in zip(accuracies, np.maximum.accumulate(accuracies), strict=True):
        below = bool(accuracy < best * (_REGAINED if below else _LOST))
        fallen.append(below)
    return np.array(fallen)


def _overfitting(accuracies: Floats) -> int | None:
    """Index of the onset of robust overfitting; five validations or fewer show none."""
    if len(accuracies) <= WINDOW:
        return None
    means = running_means(accuracies)
    best = int(np.argmax(means))
    deviation = np.median(np.abs(np.diff(accuracies, 2))) / _BENDS
    if means[best] - means[-1] < max(MARGIN, 4 * deviation * (2 / WINDOW) ** 0.5):
        return None
    return best + int(np.argmax(accuracies[best : best + WINDOW]))
