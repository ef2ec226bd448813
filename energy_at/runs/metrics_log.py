"""The metrics that a training logged, one array for each: a million steps are read in seconds."""

import csv
import math
from array import array
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from energy_at.overfitting.alarms import ALARMS

Numbers = NDArray[np.float64]
Column = tuple[
    "array[int]", "array[float]"
]  # numbers of the rows that hold a value, and the values


@dataclass(frozen=True)
class Curve:
    """One metric over training, from the rows that hold it."""

    steps: Numbers
    epochs: Numbers  # counted from 0
    values: Numbers

    def __len__(self) -> int:
        return len(self.values)

    def epoch_means(self) -> dict[int, float]:
        """Mean over each epoch; the first epoch is 1."""
        known = np.isfinite(self.epochs)
        epochs, where = np.unique(self.epochs[known], return_inverse=True)
        sums = np.bincount(where, self.values[known], len(epochs))
        means = sums / np.bincount(where, minlength=len(epochs))
        return {int(e) + 1: float(m) for e, m in zip(epochs, means, strict=True)}

    def binned(self, most: int) -> "Binned":
        """At most ``most`` bins of neighbouring rows; one row each where they suffice."""
        bins = min(most, len(self))
        if bins == 0:
            return Binned(*[np.empty(0)] * 4)
        edges = np.linspace(0, len(self), bins + 1).astype(int)
        sizes, starts = np.diff(edges), edges[:-1]
        return Binned(
            np.add.reduceat(self.steps, starts) / sizes,
            np.fmin.reduceat(self.values, starts),
            np.add.reduceat(self.values, starts) / sizes,
            np.fmax.reduceat(self.values, starts),
        )


@dataclass(frozen=True)
class Binned:
    """A curve in bins: mean step, and minimum, mean and maximum of the values."""

    steps: Numbers
    low: Numbers
    mean: Numbers
    high: Numbers


@dataclass(frozen=True)
class MetricsLog:
    """All curves of a training."""

    curves: Mapping[str, Curve]

    def __getitem__(self, name: str) -> Curve:
        """The curve of a metric; empty if it was not logged."""
        return self.curves.get(name, Curve(*[np.empty(0)] * 3))

    def rows(self, name: str) -> list[dict[str, float]]:
        curve = self[name]
        return [
            {"step": float(step), name: float(value)}
            for step, value in zip(curve.steps, curve.values, strict=True)
        ]

    def last_epoch_mean(self, name: str) -> float:
        """Mean of a training metric over the last epoch; NaN if it was not logged."""
        curve = self[name]
        values = curve.values[np.isin(curve.epochs, self["train/loss"].epochs[-1:])]
        return float(values.mean()) if len(values) else math.nan

    @property
    def alarms(self) -> list[tuple[str, int]]:
        """Kind and step of each alarm of the sentinel, in the order of their steps."""
        found = [(kind, int(step)) for kind, name in ALARMS.items() for step in self[name].steps]
        return sorted(found, key=lambda alarm: alarm[1])

    @property
    def steps_per_epoch(self) -> float:
        """Optimizer steps of the first epoch.

        Raises:
            ValueError: if no training step was logged.
        """
        loss = self["train/loss"]
        if not len(loss):
            raise ValueError("the metrics hold no training step: nothing to draw")
        return float(loss.steps[loss.epochs == loss.epochs[0]].max())


def read_metrics_log(path: Path) -> MetricsLog:
    """Reads ``metrics.csv``; empty cells, and those cut off at its end, are skipped.

    Raises:
        ValueError: if a cell is not a number.
    """
    columns: dict[str, Column] = {}
    number = -1
    with suppress(ValueError, csv.Error), path.open(newline="") as file:
        lines = csv.reader(file)
        names = next(lines, [])
        columns = {name: (array("q"), array("d")) for name in names}
        adders = [(rows.append, values.append) for rows, values in columns.values()]
        for number, cells in enumerate(lines):
            for (add_row, add_value), cell in zip(adders, cells, strict=False):
                if cell:
                    add_value(float(cell))
                    add_row(number)
        return _assemble(columns, number + 1)
    raise ValueError(f"{path} is damaged: a cell is not a number")


def _assemble(columns: dict[str, Column], count: int) -> MetricsLog:
    """Curves of the same rows share the arrays of their steps."""
    if "step" not in columns:
        return MetricsLog({})
    places = {}
    for name in ("step", "epoch"):
        places[name] = np.full(count, np.nan)
        if name in columns:
            rows, values = columns[name]
            places[name][rows] = values
    shared: dict[bytes, tuple[Numbers, Numbers]] = {}
    curves = {}
    for name, (rows, values) in columns.items():
        key = rows.tobytes()
        if key not in shared:
            shared[key] = (places["step"][rows], places["epoch"][rows])
        curves[name] = Curve(*shared[key], np.array(values))
    return MetricsLog(curves)
