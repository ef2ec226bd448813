"""When a training lost its robustness, or never had any, read from its log."""

import numpy as np
from scipy.special import bdtrc  # all of scipy.stats takes a second more to import

from energy_at.overfitting.alarms import Rows
from energy_at.overfitting.signals import WINDOW

MARGIN = 0.03  # accuracy that must be lost to speak of robust overfitting
LEVEL = 0.01  # of the test against chance
BENDS = 1.652  # median |a - 2 b + c| of draws of a normal distribution, in its deviations


def collapse_step(rows: Rows, classes: int) -> int | None:
    """Optimizer step from which a run is collapsed to its end; ``None`` for a sound run.

    A validation counts as collapsed if PGD accuracy on held-out images is below half its best so
    far, or below half of chance. A run that comes back is sound.

    Args:
        rows: Rows of ``metrics.csv``.
        classes: Of the data set.
    """
    onset, best = None, 0.0
    for row in rows:
        if "val/acc/pgd" not in row:
            continue
        accuracy = row["val/acc/pgd"]
        best = max(best, accuracy)
        if accuracy >= max(best, 1 / classes) / 2:
            onset = None
        elif onset is None:
            onset = int(row["step"])
    return onset


def is_chance(accuracy: float, images: int, chance: float) -> bool:
    """Whether predictions that know nothing of the image could have this accuracy.

    One-sided binomial test at 1 %: at 10 classes and 500 images an accuracy up to 13.2 % is chance,
    at 200 classes one up to 1.4 %. A constant prediction, right as often as its class is there,
    always is.

    Args:
        accuracy: Share of the images that are right.
        images: Their number.
        chance: Share of the commonest class among them.
    """
    return bool(bdtrc(round(accuracy * images) - 1, images, chance) >= LEVEL)


def overfitting_step(rows: Rows, classes: int) -> int | None:
    """Optimizer step from which robustness is lost slowly; ``None`` if it is not, or collapses.

    Robust overfitting is judged by running means over five validations of the PGD accuracy on
    held-out images: the last of them must lie below the best by three points, and by four standard
    errors of the difference of two such means, so that noise raises no alarm: that error is
    estimated from the median second difference of neighbouring validations, which no steady trend
    enters. The onset is the highest accuracy within the best window. Five validations or fewer
    tell nothing.

    Args:
        rows: Rows of ``metrics.csv``.
        classes: Of the data set.
    """
    validated = [row for row in rows if "val/acc/pgd" in row]
    accuracies = np.array([row["val/acc/pgd"] for row in validated])
    if len(accuracies) <= WINDOW or collapse_step(rows, classes) is not None:
        return None
    means = np.convolve(accuracies, np.full(WINDOW, 1 / WINDOW), "valid")
    best = int(np.argmax(means))
    spread = np.median(np.abs(np.diff(accuracies, 2))) / BENDS
    if means[best] - means[-1] < max(MARGIN, 4 * spread * (2 / WINDOW) ** 0.5):
        return None
    return int(validated[best + int(np.argmax(accuracies[best : best + WINDOW]))]["step"])
