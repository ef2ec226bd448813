"""Statistics of energies, and their tables: one for people, one for machines."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from energy_at.analysis.measure import Floats, Integers, Landscape, Shifts
from energy_at.reporting.figures import Style
from energy_at.reporting.tables import Table

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
QUANTITIES = {  # of each attack, by the name of its column
    "E(x*)": "marginal",
    "E(x*, y)": "joint",
    "dE(x)": "delta_marginal",
    "dE(x, y)": "delta_joint",
    "shift norm": "shift_norm",
    "|x* - x|": "size",
}
ATTACK_COLUMNS = (
    "run",
    "attack",
    "right %",
    "E(x)",
    "E(x*)",
    "dE(x)",
    "dE(x, y)",
    "dE(x) > 0 %",
    "AAE %",
    "KS of E(x)",
)
QUANTITY_COLUMNS = (
    "run",
    "attack",
    "quantity",
    "images",
    "mean",
    "std",
    *(f"q{100 * quantile:g}" for quantile in QUANTILES),
    "share > 0",
    "KS to natural",
)


@dataclass(frozen=True)
class View:
    """Runs and attacks of a figure or table.

    Attributes:
        runs: Landscapes by the name of the run, all of the same attacks.
        labels: The attacks, as they are printed.
        title: The setting.
        norm: ``linf`` or ``l2``.
        eps: Radius of the attacks, in units of the pixel range.
        styles: Of the lines of several runs, by their names.
    """

    runs: Mapping[str, Landscape]
    labels: Mapping[str, str]
    title: str
    norm: str
    eps: float
    styles: Mapping[str, Style] = field(default_factory=dict)

    @property
    def has_columns(self) -> bool:
        """Whether there are several runs: each has a column."""
        return len(self.runs) > 1


def summary(values: NDArray[Any]) -> tuple[float, ...]:
    """Mean, population standard deviation, ``QUANTILES``, and the share of values above 0."""
    quantiles = np.quantile(values, QUANTILES).tolist()
    return (values.mean(), values.std(), *quantiles, (values > 0).mean())


def ks_distance(one: Floats, other: Floats) -> float:
    """The largest distance between the distribution functions (Kolmogorov-Smirnov), 0 to 1."""
    return float(ks_2samp(one, other, method="asymp").statistic)


def class_means(values: NDArray[Any], labels: Integers, classes: int) -> Floats:
    """The mean over the images of each class."""
    sums = np.bincount(labels, weights=values, minlength=classes)
    means: Floats = sums / np.bincount(labels, minlength=classes)
    return means


def attack_table(view: View) -> Table:
    """Means and standard deviations over the images, in nats; shares in percent."""
    first = 0 if view.has_columns else 1  # the name of a single run is left out
    rows = [
        (run, label, *_cells(landscape, landscape.attacks[attack]))[first:]
        for attack, label in view.labels.items()
        for run, landscape in view.runs.items()
    ]
    return Table(ATTACK_COLUMNS[first:], rows)


def quantity_table(runs: Mapping[str, Landscape]) -> Table:
    """Mean, standard deviation, quantiles, share above 0, and KS distance to the natural images.

    ``right`` and ``AAE`` are shares of the images, energies are in nats, and ``|x* - x|`` is in
    units of the pixel range.
    """
    rows = [(run, *row) for run, landscape in runs.items() for row in _rows(landscape)]
    return Table(QUANTITY_COLUMNS, rows)


def unchanged_images(view: View) -> list[str]:
    """A line for each attack that left images unchanged: their delta energy is 0."""
    return [
        f"{f'{run}: ' if view.has_columns else ''}{label} left {still} of "
        f"{len(landscape.natural.label)} images unchanged, with delta energies of 0."
        for run, landscape in view.runs.items()
        for attack, label in view.labels.items()
        if (still := int((landscape.attacks[attack].size == 0).sum()))
    ]


def _cells(landscape: Landscape, shifts: Shifts) -> tuple[str, ...]:
    natural = landscape.natural
    return (
        f"{100 * (shifts.prediction == natural.label).mean():.1f}",
        _mean_std(natural.marginal, ""),
        _mean_std(shifts.marginal, ""),
        _mean_std(shifts.delta_marginal, "+"),
        _mean_std(shifts.delta_joint, "+"),
        f"{100 * (shifts.delta_marginal > 0).mean():.1f}",
        f"{100 * shifts.is_abnormal.mean():.1f}",
        f"{ks_distance(natural.marginal, shifts.marginal):.3f}",
    )


def _mean_std(values: NDArray[Any], sign: str) -> str:
    return f"{values.mean():{sign}.3g} ± {values.std():.3g}"


def _rows(landscape: Landscape) -> Iterator[tuple[str, ...]]:
    natural = landscape.natural
    yield _row("natural", "right", natural.prediction == natural.label)
    yield _row("natural", "E(x)", natural.marginal)
    yield _row("natural", "E(x, y)", natural.joint)
    for attack, shifts in landscape.attacks.items():
        yield _row(attack, "right", shifts.prediction == natural.label)
        yield _row(attack, "AAE", shifts.is_abnormal)
        for quantity, name in QUANTITIES.items():
            values = getattr(shifts, name)
            of_natural = getattr(natural, name, None)
            ks = "" if of_natural is None else f"{ks_distance(of_natural, values):.6g}"
            yield _row(attack, quantity, values, ks)


def _row(attack: str, quantity: str, values: NDArray[Any], ks: str = "") -> tuple[str, ...]:
    if values.dtype == np.bool_:
        cells = [f"{values.mean():.6g}", *[""] * (len(QUANTILES) + 2)]
    else:
        cells = [f"{number:.6g}" for number in summary(values)]
    return (attack, quantity, str(len(values)), *cells, ks)
