"""Energies in numbers: one row for each attack for people, one for each quantity for machines."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from energy_at.analysis.figures import View
from energy_at.analysis.landscape import QUANTILES, Landscape, Shifts, ks_distance, summary
from energy_at.reporting.tables import Table

QUANTITIES = {  # of each attack, by the name of its column
    "E(x*)": "marginal",
    "E(x*, y)": "joint",
    "dE(x)": "delta_marginal",
    "dE(x, y)": "delta_joint",
    "shift norm": "shift_norm",
    "|x* - x|": "size",
}


def by_attack(view: View) -> Table:
    """Means and standard deviations over the images, in nats; shares in percent."""
    columns = ("attack", "right %", "E(x)", "E(x*)", "dE(x)", "dE(x, y)", "dE(x) > 0 %", "AAE %",
               "KS of E(x)")  # fmt: skip
    rows = [
        (*([run] if view.side_by_side else []), label, *_cells(found, found.attacks[attack]))
        for attack, label in view.labels.items()
        for run, found in view.runs.items()
    ]
    return Table((*(["run"] if view.side_by_side else []), *columns), rows)


def by_quantity(runs: Mapping[str, Landscape]) -> Table:
    """Mean, spread, quantiles, share above 0, and distance to the natural images (KS).

    ``right`` and ``AAE`` are shares of the images, energies are in nats, and ``|x* - x|`` is in
    units of the pixel range.
    """
    quantiles = (f"q{100 * quantile:g}" for quantile in QUANTILES)
    columns = ("run", "attack", "quantity", "images", "mean", "std", *quantiles, "share > 0",
               "KS to natural")  # fmt: skip
    return Table(columns, [(run, *row) for run, found in runs.items() for row in _rows(found)])


def unmoved(view: View) -> list[str]:
    """A line for each attack that left images as they were: their delta energy is 0."""
    lines = []
    for run, found in view.runs.items():
        for attack, label in view.labels.items():
            still = int((found.attacks[attack].size == 0).sum())
            if still:
                who = f"{run}: {label}" if view.side_by_side else label
                lines.append(
                    f"{who} left {still} of {len(found.natural.label)} images as they were, with "
                    "delta energies of 0."
                )
    return lines


def clean_accuracy(found: Landscape) -> float:
    """The share of natural images that are right."""
    return float((found.natural.prediction == found.natural.label).mean())


def _cells(found: Landscape, shifts: Shifts) -> tuple[str, ...]:
    natural = found.natural
    return (
        f"{100 * (shifts.prediction == natural.label).mean():.1f}",
        _spread(natural.marginal, ""),
        _spread(shifts.marginal, ""),
        _spread(shifts.delta_marginal, "+"),
        _spread(shifts.delta_joint, "+"),
        f"{100 * (shifts.delta_marginal > 0).mean():.1f}",
        f"{100 * shifts.is_abnormal.mean():.1f}",
        f"{ks_distance(natural.marginal, shifts.marginal):.3f}",
    )


def _spread(values: NDArray[Any], sign: str) -> str:
    return f"{values.mean():{sign}.3g} ± {values.std():.3g}"


def _rows(found: Landscape) -> Iterator[tuple[str, ...]]:
    natural = found.natural
    yield _row("natural", "right", natural.prediction == natural.label)
    yield _row("natural", "E(x)", natural.marginal)
    yield _row("natural", "E(x, y)", natural.joint)
    for attack, shifts in found.attacks.items():
        yield _row(attack, "right", shifts.prediction == natural.label)
        yield _row(attack, "AAE", shifts.is_abnormal)
        for quantity, name in QUANTITIES.items():
            ks = ks_distance(getattr(natural, name), getattr(shifts, name)) if (
                name in ("marginal", "joint")) else None  # fmt: skip
            yield _row(attack, quantity, getattr(shifts, name), ks)


def _row(
    attack: str, quantity: str, values: NDArray[Any], ks: float | None = None
) -> tuple[str, ...]:
    start = (attack, quantity, str(len(values)))
    if values.dtype == np.bool_:
        return (*start, f"{values.mean():.6g}", *[""] * (len(QUANTILES) + 3))
    found = summary(values)
    numbers = (found.mean, found.std, *found.quantiles, found.positive)
    return (*start, *(f"{number:.6g}" for number in numbers), "" if ks is None else f"{ks:.6g}")
