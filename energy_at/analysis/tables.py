"""Statistics of energies, and their tables: one for people, one for machines."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from energy_at.analysis.measure import Floats, Integers, Landscape, Natural, Shifts
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


@dataclass(frozen=True)
class View:
    """Runs and attacks of a figure or table."""

    runs: Mapping[str, Landscape]  # by the name of the run, all of the same attacks
    labels: Mapping[str, str]  # of the attacks, as they are printed
    title: str
    norm: str  # linf or l2
    eps: float  # radius of the attacks, in units of the pixel range
    styles: Mapping[str, Style] = field(default_factory=dict)  # of several runs, by their names

    @property
    def has_columns(self) -> bool:
        """Whether there are several runs: each has a column."""
        return len(self.runs) > 1


def summary(values: NDArray[Any]) -> dict[str, float]:
    """Mean, population standard deviation, ``QUANTILES``, and the share of values above 0."""
    names = [f"q{100 * quantile:g}" for quantile in QUANTILES]
    quantiles = dict(zip(names, np.quantile(values, QUANTILES).tolist(), strict=True))
    moments = {"mean": values.mean(), "std": values.std()}
    return moments | quantiles | {"share > 0": (values > 0).mean()}


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
    rows = [
        ({"run": run} if view.has_columns else {})
        | {"attack": label}
        | _cells(landscape.natural, landscape.attacks[attack])
        for attack, label in view.labels.items()
        for run, landscape in view.runs.items()
    ]
    return Table.of(rows)


def quantity_table(runs: Mapping[str, Landscape]) -> Table:
    """Mean, standard deviation, quantiles, share above 0, and KS distance to the natural images.

    ``correct`` and ``AAE`` are shares of the images, energies are in nats, and ``|x* - x|`` is in
    units of the pixel range.
    """
    return Table.of(
        [{"run": run} | row for run, landscape in runs.items() for row in _rows(landscape)]
    )


def unchanged_images(view: View) -> list[str]:
    """A line for each attack that left images unchanged: their delta energy is 0."""
    return [
        f"{f'{run}: ' if view.has_columns else ''}{label} left {still} of "
        f"{len(landscape.natural.label)} images unchanged, with delta energies of 0."
        for run, landscape in view.runs.items()
        for attack, label in view.labels.items()
        if (still := int((landscape.attacks[attack].size == 0).sum()))
    ]


def _cells(natural: Natural, shifts: Shifts) -> dict[str, str]:
    return {
        "correct %": f"{100 * (shifts.prediction == natural.label).mean():.1f}",
        "E(x)": _mean_std(natural.marginal, ""),
        "E(x*)": _mean_std(shifts.marginal, ""),
        "dE(x)": _mean_std(shifts.delta_marginal, "+"),
        "dE(x, y)": _mean_std(shifts.delta_joint, "+"),
        "dE(x) > 0 %": f"{100 * (shifts.delta_marginal > 0).mean():.1f}",
        "AAE %": f"{100 * shifts.is_abnormal.mean():.1f}",
        "KS of E(x)": f"{ks_distance(natural.marginal, shifts.marginal):.3f}",
    }


def _mean_std(values: NDArray[Any], sign: str) -> str:
    return f"{values.mean():{sign}.3g} ± {values.std():.3g}"


def _rows(landscape: Landscape) -> Iterator[dict[str, str]]:
    natural = landscape.natural
    yield _row("natural", "correct", natural.prediction == natural.label)
    yield _row("natural", "E(x)", natural.marginal)
    yield _row("natural", "E(x, y)", natural.joint)
    for attack, shifts in landscape.attacks.items():
        yield _row(attack, "correct", shifts.prediction == natural.label)
        yield _row(attack, "AAE", shifts.is_abnormal)
        for quantity, name in QUANTITIES.items():
            values = getattr(shifts, name)
            of_natural = getattr(natural, name, None)
            ks = "" if of_natural is None else f"{ks_distance(of_natural, values):.6g}"
            yield _row(attack, quantity, values, ks)


def _row(attack: str, quantity: str, values: NDArray[Any], ks: str = "") -> dict[str, str]:
    cells = {name: f"{number:.6g}" for name, number in summary(values.astype(float)).items()}
    if values.dtype == np.bool_:
        cells = dict.fromkeys(cells, "") | {"mean": cells["mean"]}
    about = {"attack": attack, "quantity": quantity, "images": str(len(values))}
    return about | cells | {"KS to natural": ks}
