"""Energies in numbers: one row for each attack for people, one for each quantity for machines."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from energy_at.analysis.figures import View
from energy_at.analysis.measure import Landscape, Shifts
from energy_at.analysis.statistics import QUANTILES, ks_distance, summary
from energy_at.reporting.tables import Table

QUANTITIES = {  # of each attack, by the name of its column
    "E(x*)": "marginal",
    "E(x*, y)": "joint",
    "dE(x)": "delta_marginal",
    "dE(x, y)": "delta_joint",
    "shift norm": "shift_norm",
    "|x* - x|": "size",
}

ATTACK_COLUMNS = (
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


def attack_table(view: View) -> Table:
    """Means and standard deviations over the images, in nats; shares in percent."""
    rows = [
        (*([run] if view.has_columns else []), label, *_cells(landscape, landscape.attacks[attack]))
        for attack, label in view.labels.items()
        for run, landscape in view.runs.items()
    ]
    return Table((*(["run"] if view.has_columns else []), *ATTACK_COLUMNS), rows)


def quantity_table(runs: Mapping[str, Landscape]) -> Table:
    """Mean, standard deviation, quantiles, share above 0, and KS distance to the natural images.

    ``right`` and ``AAE`` are shares of the images, energies are in nats, and ``|x* - x|`` is in
    units of the pixel range.
    """
    rows = [(run, *row) for run, landscape in runs.items() for row in _rows(landscape)]
    return Table(QUANTITY_COLUMNS, rows)


def unchanged_images(view: View) -> list[str]:
    """A line for each attack that left images unchanged: their delta energy is 0."""
    lines = []
    for run, landscape in view.runs.items():
        for attack, label in view.labels.items():
            still = int((landscape.attacks[attack].size == 0).sum())
            if still:
                who = f"{run}: {label}" if view.has_columns else label
                lines.append(
                    f"{who} left {still} of {len(landscape.natural.label)} images unchanged, with "
                    "delta energies of 0."
                )
    return lines


def clean_accuracy(landscape: Landscape) -> float:
    """Share of natural images that are classified correctly."""
    return float((landscape.natural.prediction == landscape.natural.label).mean())


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
            ks = None if of_natural is None else ks_distance(of_natural, values)
            yield _row(attack, quantity, values, ks)


def _row(
    attack: str, quantity: str, values: NDArray[Any], ks: float | None = None
) -> tuple[str, ...]:
    start = (attack, quantity, str(len(values)))
    if values.dtype == np.bool_:
        return (*start, f"{values.mean():.6g}", *[""] * (len(QUANTILES) + 3))
    result = summary(values)
    numbers = (result.mean, result.std, *result.quantiles, result.positive)
    return (*start, *(f"{number:.6g}" for number in numbers), "" if ks is None else f"{ks:.6g}")
