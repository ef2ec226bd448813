"""Statistics of columns of energies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from energy_at.analysis.measure import Floats, Integers

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True)
class Summary:
    """Summary of a distribution, in the unit of its values.

    Attributes:
        mean: Of the values.
        std: Their population standard deviation (divided by ``n``).
        quantiles: At ``QUANTILES``.
        positive: Share of values above 0.
    """

    mean: float
    std: float
    quantiles: tuple[float, ...]
    positive: float


def summary(values: NDArray[Any]) -> Summary:
    """The summary of a column."""
    quantiles = tuple(float(value) for value in np.quantile(values, QUANTILES))
    positive = float((values > 0).mean())
    return Summary(float(values.mean()), float(values.std()), quantiles, positive)


def ks_distance(one: Floats, other: Floats) -> float:
    """The largest distance between the distribution functions (Kolmogorov-Smirnov), 0 to 1."""
    return float(ks_2samp(one, other, method="asymp").statistic)


def class_means(values: NDArray[Any], labels: Integers, classes: int) -> Floats:
    """The mean over the images of each class."""
    sums = np.bincount(labels, weights=values, minlength=classes)
    means: Floats = sums / np.bincount(labels, minlength=classes)
    return means


def require_every_class(labels: Sequence[int], classes: int) -> None:
    """Refuses images without one of every class: a class without images has no mean.

    Raises:
        ValueError: naming the classes.
    """
    empty = sorted(set(range(classes)) - set(labels))
    if empty:
        names = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise ValueError(
            f"none of the {len(labels)} images is of class {names}: take more of them with a "
            "larger subset=, or all with subset=null"
        )
