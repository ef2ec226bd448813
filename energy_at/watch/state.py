"""State of watched runs, read from their folders: progress, curves, alarms and results."""

import csv
import math
import os
import time
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from energy_at.core.files import read_json
from energy_at.overfitting.alarms import ALARMS, REPEATED
from energy_at.overfitting.onset import RunStatus, status_of
from energy_at.reporting.finished_run import validation_images
from energy_at.reporting.panels import DELTA_X, METRICS, PGD, RATE, Metric
from energy_at.runs.folder import RunFolder, accuracies_in, folder_names, runs_in
from energy_at.runs.metrics_log import Curve

ROWS_AT_ONCE = 50  # that a training writes together: callbacks.energy.every
QUIET = 120.0  # seconds without a row that any training may need, to validate
BINS = 400  # of a curve
AT_ONCE = 4 << 20  # bytes of one read: a log of a million rows is shown while it is read

Row = dict[str, float]


class Tail:
    """New rows of a growing ``metrics.csv``, each byte of it read once.

    The file may not exist yet. Its writer replaces it when a column is added, and when a resumed
    run truncates it: then it is read again from its beginning.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.behind = False  # whether there is more to read now
        self._columns: list[str] = []
        self._place = 0
        self._inode = 0

    def read(self, most: int = AT_ONCE) -> tuple[list[Row], bool]:
        """New rows, without empty cells and incomplete lines; whether they start from the top.

        Raises:
            ValueError: if the file is no text, or a cell is not a number.
        """
        if not self.path.is_file():
            known, self.behind = self._place > 0, False
            self._restart(0)
            return [], known
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            restarts = status.st_ino != self._inode or status.st_size < self._place
            if restarts:
                self._restart(status.st_ino)
            file.seek(self._place)
            data = file.read(most)
        whole = data[: data.rfind(b"\n") + 1]
        self._place += len(whole)
        self.behind = bool(whole) and self._place < status.st_size and len(data) == most
        return self._rows(whole), restarts

    def _restart(self, inode: int) -> None:
        self._columns, self._place, self._inode = [], 0, inode

    def _rows(self, data: bytes) -> list[Row]:
        with suppress(ValueError):  # of which UnicodeDecodeError is one
            lines = data.decode().splitlines()
            if not self._columns and lines:
                self._columns = next(csv.reader(lines[:1]))
                lines = lines[1:]
            return [
                {k: float(v) for k, v in zip(self._columns, line.split(","), strict=False) if v}
                for line in lines
            ]
        raise ValueError(f"{self.path} is damaged: a cell is not a number")


class Trace:
    """A growing curve of finite values."""

    def __init__(self) -> None:
        self.steps, self.values = array("d"), array("d")

    def add(self, step: float, value: float) -> None:
        if math.isfinite(value):
            self.steps.append(step)
            self.values.append(value)

    def points(self) -> list[list[float]]:
        """Step, lowest, mean and highest value of at most ``BINS`` bins."""
        steps, values = np.array(self.steps), np.array(self.values)
        bins = Curve(steps, steps, values).binned(BINS)
        points: list[list[float]] = np.column_stack(
            [bins.steps, bins.low, bins.mean, bins.high]
        ).tolist()
        return points


class WatchedRun:
    """One run folder, read as it grows."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.tail = Tail(folder.metrics_file)
        self.version = 0  # changes with every new row
        self._clear()

    def _clear(self) -> None:
        self._config = OmegaConf.create()
        self.traces = {name: Trace() for name in METRICS}
        self.step, self.epoch, self.rate = 0, 0, math.nan
        self.alarms: list[dict[str, Any]] = []
        self._validations: list[Row] = []
        self._first_epoch = 0  # its steps, as far as they are known
        self._repeated = 0  # epochs, after rollbacks

    def update(self) -> None:
        rows, restarts = self.tail.read()
        if restarts:
            self._clear()
        for row in rows:
            self._take(row)
        self.version += bool(rows or restarts)

    def _take(self, row: Row) -> None:
        step = row.get("step", 0.0)
        self.step, self.epoch = int(step), int(row.get("epoch", self.epoch))
        self.rate = row.get(RATE.key, self.rate)
        self._repeated = int(row.get(REPEATED, self._repeated))
        if self.epoch == 0:
            self._first_epoch = max(self._first_epoch, self.step)
        for name, metric in METRICS.items():
            if all(key in row for key in metric.keys):
                self.traces[name].add(step, _value(row, metric))
        for name, key in ALARMS.items():
            if row.get(key):
                self.alarms.append({"name": name, "step": self.step, "kind": "alarm"})
        if PGD.key in row:
            self._validations.append(row)

    def _setting(self, key: str, default: Any = None) -> Any:
        """From its configuration, once it is written; a resumed run may have changed it."""
        if not self._config and self.folder.config_file.is_file():
            self._config = self.folder.config()
        return OmegaConf.select(self._config, key, default=default)

    def state(self, name: str) -> dict[str, Any]:
        steps, batch = self._steps(), self._setting("dataset.batch_size", 0)
        left = (steps - self.step) * batch / self.rate if steps and self.rate > 0 else None
        path = self.folder.metrics_file
        age = max(0.0, time.time() - path.stat().st_mtime) if path.is_file() else None
        results = self.folder.results() if self.folder.results_file.is_file() else {}
        robustness = RunStatus("not logged")
        if self._config:
            robustness = status_of(self._validations, *validation_images(self._config, results))
        onsets = robustness.onsets.items()
        status, detail = self._status(steps, age, batch, robustness)
        return {
            "name": name,
            "folder": str(self.folder.path),
            "status": status,
            "detail": detail,
            "step": self.step,
            "steps": steps,
            "epoch": self.epoch + 1 if self.step else 0,
            "epochs": self._epochs(),
            "images_per_s": self.rate if math.isfinite(self.rate) else None,
            "seconds_left": left,
            "age": age,
            "last": {key: t.values[-1] for key, t in self.traces.items() if t.values},
            "marks": self.alarms + [{"name": k, "step": s, "kind": "onset"} for k, s in onsets],
            "results": self._results(results),
            "samplings": self._samplings(),
            "version": self.version,
        }

    def curves(self) -> dict[str, list[list[float]]]:
        """Bins of every curve that has any: step, lowest, mean and highest value."""
        return {
            name: [[float(f"{v:.5g}") for v in point] for point in trace.points()]
            for name, trace in self.traces.items()
            if trace.values
        }

    @property
    def has_ended(self) -> bool:
        return self.folder.results_file.is_file() or self.folder.error_file.is_file()

    def _status(
        self, steps: int | None, age: float | None, batch: int, robustness: RunStatus
    ) -> tuple[str, str]:
        if self.folder.error_file.is_file():
            return "failed", self.folder.error_file.read_text().strip()
        if self.folder.results_file.is_file():
            return "finished", str(robustness)
        if age is None or not self.step:
            return "waiting", "no step yet"
        if age > max(QUIET, 3 * ROWS_AT_ONCE * batch / (self.rate or math.nan)):
            return "silent", "stopped, or stuck"
        return "evaluating" if steps and self.step >= steps else "training", ""

    def _epochs(self) -> int | None:
        """Of the whole training, with those that a rollback repeats."""
        planned = self._setting("trainer.max_epochs")
        return None if planned is None else planned + self._repeated

    def _steps(self) -> int | None:
        """Of the whole training; known from its first epoch, or from the size of its data."""
        epochs, batch = self._epochs(), self._setting("dataset.batch_size")
        images = self.folder.record().get("train_images")
        if self.epoch > 0:
            per_epoch = self._first_epoch
        elif images and batch and self._setting("trainer.limit_train_batches") is None:
            per_epoch = -(-images // batch)
        else:
            return None
        return per_epoch * epochs if epochs else None

    def _results(self, results: Mapping[str, Any]) -> dict[str, float]:
        if not results:
            return {}
        found = {key: 100 * share for key, share in accuracies_in(results).items()}
        found["reg.weight"] = float(self._setting("reg.weight", 0.0))
        if values := self.traces[DELTA_X.name].values:
            found[f"{DELTA_X.key}.max"] = max(values)
        return found

    def _samplings(self) -> dict[str, dict[str, float]]:
        files = sorted(self.folder.path.glob("samples/*/samples.json"))
        scores = {file.parent.name: read_json(file)["sets"]["samples"] for file in files}
        return {
            name: {f"sample/{key}": value for key, value in found.items() if value}
            for name, found in scores.items()
        }


class Watch:
    """All runs in some folders; jobs of a sweep join as they begin.

    Raises:
        FileNotFoundError: if a folder is no run, no sweep and not empty.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.runs: dict[Path, WatchedRun] = {}
        for name in self.names:
            self._join(name)

    def update(self) -> None:
        for name in self.names:
            if not RunFolder(Path(name)).config_file.is_file():
                with suppress(FileNotFoundError):  # a folder without its configuration yet
                    self._join(name)
        for run in self.runs.values():
            run.update()

    @property
    def behind(self) -> bool:
        return any(run.tail.behind for run in self.runs.values())

    @property
    def has_ended(self) -> bool:
        return not self.behind and all(run.has_ended for run in self.runs.values())

    def states(self) -> list[dict[str, Any]]:
        """Of every run, without its curves; ``overrides`` are those that not all runs share."""
        runs = list(self.runs.values())
        names = folder_names([run.folder for run in runs])
        typed = [run.folder.overrides() for run in runs]
        shared = set(typed[0]).intersection(*typed)
        return [
            run.state(name) | {"overrides": " ".join(o for o in own if o not in shared)}
            for run, name, own in zip(runs, names, typed, strict=True)
        ]

    def _join(self, name: str) -> None:
        path = Path(name)
        is_empty = path.is_dir() and not any(path.iterdir())  # a training is about to begin
        for folder in [RunFolder(path)] if is_empty else runs_in(name):
            if not any(folder.path in other.parents for other in self.runs):
                for other in folder.path.parents:  # an empty folder has become a sweep
                    self.runs.pop(other, None)
                self.runs.setdefault(folder.path, WatchedRun(folder))


def _value(row: Row, metric: Metric) -> float:
    return metric.scale * (row[metric.key] - (row[metric.minus] if metric.minus else 0.0))
