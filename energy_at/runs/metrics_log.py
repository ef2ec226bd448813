"""The metrics that a training logged, one array for each: a million steps are read in seconds."""

import csv
import math
import os
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from energy_at.overfitting.alarms import ALARMS, find_column
from energy_at.runs.damage import damage_of_log, require_columns

AT_ONCE = 4 << 20  # bytes of one read: a log of a million rows is shown while it is read
_REMEDY = "; restore the file, or train again elsewhere"
Numbers = NDArray[np.float64]
Column = tuple["array[int]", "array[float]"]  # rows that hold a value, and the values


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
        """The curve of a metric, be it of an attack with other steps; empty if not logged."""
        return self.curves.get(find_column(self.curves, name), Curve(*[np.empty(0)] * 3))

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


class _LineError(ValueError):
    """A line that is well formed, but not as it was written."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


def _order_error(row: int, column: str, value: float, why: str) -> _LineError:
    """A row that does not follow the rows before it."""
    return _LineError(row + 2, f"column {column} holds {value:g} {why}")  # below the names


def _from(first: int, rows: "array[int]", values: "array[float]") -> Column:
    """The rows of a column from ``first`` on, with their values."""
    start = bisect_left(rows, first)
    return rows[start:], values[start:]


class LogReader:
    """Reads a ``metrics.csv``, and while it grows each byte of it once.

    The file may not exist yet. Its writer replaces it when a column is added, and when a resumed
    run truncates it: then it is read again from its beginning.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.behind = False  # whether there is more to read now
        self.restarted = False  # whether the last read began at the top
        self._restart(0)

    def read(self, most: int = AT_ONCE) -> bool:
        """Reads at most ``most`` new bytes; returns whether the log has changed.

        Empty cells are skipped, and lines that are not complete.

        Raises:
            ValueError: if the file is damaged, with line and column.
        """
        if not self.path.is_file():
            self.restarted, self.behind = self._inode > 0, False
            self._restart(0)
            return self.restarted
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            self.restarted = status.st_ino != self._inode or status.st_size < self._place
            if self.restarted:
                self._restart(status.st_ino)
            file.seek(self._place)
            data = file.read(most)
        whole = data[: data.rfind(b"\n") + 1]
        self._place += len(whole)
        self.behind = bool(whole) and self._place < status.st_size and len(data) == most
        damage = None
        try:
            self.add(whole)
        except _LineError as error:
            damage = error.line, str(error)
        except (ValueError, csv.Error) as error:
            known = list(self._columns), self._lines
            damage = damage_of_log(whole, *known) or (self._lines + 1, str(error))
        if damage is None and not data[len(whole) :].replace(b"\0", b"\xff").isascii():
            damage = self._lines + 1, "it is not text"  # nor the beginning of a line
        if damage is not None:
            raise _damaged(self.path, *damage)
        return self.restarted or bool(whole)

    def log(self) -> MetricsLog:
        """All curves so far; those of the same rows share the arrays of their steps."""
        if not self._columns:
            return MetricsLog({})
        places = {}
        for name in ("step", "epoch"):
            places[name] = np.full(self._rows, np.nan)
            if name in self._columns:
                rows, values = self._columns[name]
                places[name][rows] = values
        shared: dict[bytes, tuple[Numbers, Numbers]] = {}
        curves = {}
        for name, (rows, values) in self._columns.items():
            key = rows.tobytes()
            if key not in shared:
                shared[key] = (places["step"][rows], places["epoch"][rows])
            curves[name] = Curve(*shared[key], np.array(values))
        return MetricsLog(curves)

    def _restart(self, inode: int) -> None:
        self._columns: dict[str, Column] = {}
        self._rows, self._lines, self._place, self._inode = 0, 0, 0, inode

    def add(self, whole: bytes) -> None:
        """Adds whole lines."""
        lines = csv.reader(whole.decode().split("\n")[:-1], strict=True)
        cells_from = 0
        if whole and not self._columns:
            cells_from = whole.find(b"\n")
            names = next(lines)
            require_columns(names)
            _require_written(names, self.path)
            self._columns = {name: (array("q"), array("d")) for name in names}
        if b"_" in whole[cells_from:] or b"\r" in whole:  # Python reads 1_0 as 10
            raise ValueError("a cell is not as it was written")
        rows = self._rows
        adders = [(rows.append, values.append) for rows, values in self._columns.values()]
        for cells in filter(None, lines):
            for (add_row, add_value), cell in zip(adders, cells, strict=True):
                if cell:
                    add_value(float(cell))
                    add_row(self._rows)
            self._rows += 1
        steps = self._columns["step"][1] if self._columns else []
        if len(steps) != self._rows or not all(map(math.isfinite, steps[rows:])):
            raise ValueError("a step is not a number")
        self._lines += whole.count(b"\n")
        self._require_order(rows)

    def _require_order(self, first: int) -> None:
        """Raises ``_LineError`` unless the rows from ``first`` on are those of one training.

        Each training step has one row, of the step after the last one's. Rows of validations and
        alarms are of any step.
        """
        for name in ("step", "epoch"):
            rows, values = self._columns.get(name, (array("q"), array("d")))
            for row, value in zip(*_from(first, rows, values), strict=True):
                if not (value >= 0 and value % 1 == 0):
                    raise _order_error(row, name, value, f"which is no {name}")
        steps = self._columns["step"][1] if self._columns else array("d")
        trained, _ = self._columns.get("train/loss", (array("q"), array("d")))
        known, epochs = self._columns.get("epoch", (array("q"), array("d")))
        start = max(0, bisect_left(trained, first) - 1)  # the last one before, too
        of_epochs = dict(zip(*_from(trained[start] if trained else 0, known, epochs), strict=True))
        for before, row in pairwise(trained[start:]):
            if steps[row] != steps[before] + 1:
                after = f"after {steps[before]:g}: rows are lost, repeated or of another training"
                raise _order_error(row, "step", steps[row], after)
            epoch, last = of_epochs.get(row), of_epochs.get(before)
            if epoch is not None and last is not None and epoch not in (last, last + 1):
                after = f"after {last:g}: rows are lost or of another training"
                raise _order_error(row, "epoch", epoch, after)


def columns_file(log: Path) -> Path:
    """Where the names of the columns are kept a second time: a name that was cut is a name too."""
    return log.with_name(f".{log.stem}_columns")


def _require_written(names: Sequence[str], log: Path) -> None:
    """Raises ``_LineError`` unless the columns are the first ones that were written.

    The writer notes further ones before it adds them. A log without the note passes.
    """
    file = columns_file(log)
    written = file.read_text(errors="replace").split("\n")[:-1] if file.is_file() else names
    for name, known in zip_longest(names, written[: len(names)]):
        if name != known:
            instead = f"not {known}" if known else "which was never logged"
            raise _LineError(1, f"it names a column {name}, {instead}")


def _damaged(path: Path, line: int, why: str) -> ValueError:
    return ValueError(f"{path} is damaged: line {line}: {why}{_REMEDY}")


def require_rows(path: Path, rows: int, step: int) -> None:
    """Raises ``ValueError`` unless a log holds at least that many whole rows, until that step.

    A row that was lost among them would have a later one take its place.
    """
    if not rows:  # a run without a log has no file
        return
    content = path.read_bytes() if path.is_file() else b""
    lines = content.split(b"\n")[:-1]
    if lines and (damage := damage_of_log(lines[0] + b"\n")):
        raise _damaged(path, *damage)
    if len(lines) < rows + 1:
        raise ValueError(
            f"{path} is damaged: of the {rows} rows that were logged until the last checkpoint, "
            f"{max(0, len(lines) - 1)} are left{_REMEDY}"
        )
    if damage := damage_of_log(b"\n".join(lines[: rows + 1]) + b"\n"):
        raise _damaged(path, *damage)
    try:
        LogReader(path).add(b"\n".join(lines[: rows + 1]) + b"\n")
    except _LineError as error:
        raise _damaged(path, error.line, str(error)) from error
    header, last = (next(csv.reader([line.decode()])) for line in (lines[0], lines[rows]))
    found = int(float(last[header.index("step")]))
    if found > step:
        raise ValueError(
            f"{path} is damaged: row {rows} is of step {found}, but it was logged until the last "
            f"checkpoint, at step {step}: rows are lost{_REMEDY}"
        )


def read_metrics_log(path: Path) -> MetricsLog:
    """Reads ``metrics.csv``.

    Raises:
        ValueError: if it is damaged, with line and column.
    """
    reader = LogReader(path)
    reader.read()
    while reader.behind:
        reader.read()
    return reader.log()
