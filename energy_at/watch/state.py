"""Runs that are watched: where each of them is, and its curves so far."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from energy_at.core.files import read_json
from energy_at.overfitting.alarms import ALARMS, REPEATED
from energy_at.overfitting.onset import collapse_step, overfitting_step
from energy_at.reporting.panels import Line, curve_panels
from energy_at.runs.folder import RunFolder, accuracies_in, folder_names, runs_in
from energy_at.watch.tail import Row, Tail, Trace

LINES = {
    " - ".join(line.keys): (line, 100.0 if panel.unit == "%" else 1.0)
    for _, panel in curve_panels()
    for line in panel.lines
}
RATE = "perf/images_per_s"
ROWS_AT_ONCE = 50  # that a training writes together: callbacks.energy.every
QUIET = 120.0  # seconds without a row that any training may need, to validate


class Watched:
    """One run folder, read as it grows."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.tail = Tail(folder.metrics_file)
        self.version = 0  # changes with every new row
        self._clear()

    def _clear(self) -> None:
        self._config: DictConfig | None = None
        self.traces = {name: Trace() for name in LINES}
        self.step, self.epoch, self.rate = 0, 0, math.nan
        self.alarms: list[dict[str, Any]] = []
        self._validations: list[Row] = []
        self._first_epoch = 0  # steps of it, as far as it is known
        self._repeated = 0  # epochs, after rollbacks

    def look(self) -> None:
        """Reads what is new."""
        rows, anew = self.tail.look()
        if anew:
            self._clear()
        for row in rows:
            self._take(row)
        self.version += bool(rows or anew)

    def _take(self, row: Row) -> None:
        step = row.get("step", 0.0)
        self.step, self.epoch = int(step), int(row.get("epoch", self.epoch))
        self.rate = row.get(RATE, self.rate)
        self._repeated = int(row.get(REPEATED, self._repeated))
        if self.epoch == 0:
            self._first_epoch = max(self._first_epoch, self.step)
        for name, (line, scale) in LINES.items():
            if all(key in row for key in line.keys):
                self.traces[name].add(step, scale * _value(row, line))
        for name, key in ALARMS.items():
            if row.get(key):
                self.alarms.append({"name": name, "step": self.step, "kind": "alarm"})
        if "val/acc/pgd" in row:
            self._validations.append(row)

    @property
    def config(self) -> DictConfig | None:
        """Its configuration, as soon as it is written; a resumed run may have changed it."""
        if self._config is None and self.folder.config_file.is_file():
            self._config = self.folder.config()
        return self._config

    def state(self, name: str) -> dict[str, Any]:
        """Everything but the curves, as plain data."""
        config = self.config
        steps, batch = self._steps(config), _get(config, "dataset.batch_size", 0)
        left = (steps - self.step) * batch / self.rate if steps and self.rate > 0 else None
        age = self._age()
        return {
            "name": name,
            "folder": str(self.folder.path),
            "status": self._status(steps, age, batch),
            "step": self.step,
            "steps": steps,
            "epoch": self.epoch + 1 if self.step else 0,
            "epochs": self._epochs(config),
            "images_per_s": self.rate if math.isfinite(self.rate) else None,
            "seconds_left": left,
            "age": age,
            "last": {key: t.last for key, t in self.traces.items() if math.isfinite(t.last)},
            "marks": self.alarms + self._onsets(config),
            "results": self._results(config),
            "samplings": self._samplings(),
            "version": self.version,
        }

    def curves(self) -> dict[str, list[list[float]]]:
        """Bins of every curve that has any: step, lowest, mean and highest value."""
        return {
            name: [[float(f"{v:.5g}") for v in point] for point in trace.points()]
            for name, trace in self.traces.items()
            if trace.points()
        }

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.folder.results_file.is_file() or self._error() is not None

    def _status(self, steps: int | None, age: float | None, batch: int) -> str:
        if (error := self._error()) is not None:
            return f"failed: {error}"
        if self.folder.results_file.is_file():
            return "finished"
        if age is None or not self.step:
            return "waiting for the first step"
        if age > max(QUIET, 3 * ROWS_AT_ONCE * batch / (self.rate or math.nan)):
            return "silent: stopped, or stuck"
        return "evaluating" if steps and self.step >= steps else "training"

    def _epochs(self, config: DictConfig | None) -> int | None:
        """Of the whole training, with those that a rollback repeats."""
        planned = _get(config, "trainer.max_epochs", None)
        return None if planned is None else planned + self._repeated

    def _steps(self, config: DictConfig | None) -> int | None:
        """Of the whole training; known from its first epoch, or from the size of its data."""
        epochs = self._epochs(config)
        batch = _get(config, "dataset.batch_size", None)
        images = self.folder.record().get("train_images")
        if self.epoch > 0:
            per_epoch = self._first_epoch
        elif images and batch and _get(config, "trainer.limit_train_batches", None) is None:
            per_epoch = -(-images // batch)
        else:
            return None
        return per_epoch * epochs if epochs else None

    def _age(self) -> float | None:
        """Seconds since the last row was written."""
        path = self.folder.metrics_file
        return max(0.0, time.time() - path.stat().st_mtime) if path.is_file() else None

    def _error(self) -> str | None:
        file = self.folder.error_file
        return file.read_text().strip() if file.is_file() else None

    def _onsets(self, config: DictConfig | None) -> list[dict[str, Any]]:
        """Steps from which the PGD accuracy on held-out images has been lost so far."""
        classes = _get(config, "dataset.classes", None)
        judges = {"CO": collapse_step, "RO": overfitting_step} if classes else {}
        steps = {name: judge(self._validations, classes) for name, judge in judges.items()}
        return [
            {"name": name, "step": step, "kind": "onset"}
            for name, step in steps.items()
            if step is not None
        ]

    def _results(self, config: DictConfig | None) -> dict[str, float]:
        """Accuracies after training, and what a sweep is drawn against."""
        if config is None or not self.folder.results_file.is_file():
            return {}
        highest = [point[3] for point in self.traces["train/delta_energy/marginal"].points()]
        return (
            {key: 100 * share for key, share in accuracies_in(self.folder.results()).items()}
            | {"reg.weight": float(_get(config, "reg.weight", 0.0))}
            | ({"train/delta_energy/marginal.max": max(highest)} if highest else {})
        )

    def _samplings(self) -> dict[str, dict[str, float]]:
        """Scores of the samples that were drawn of it."""
        found = sorted(self.folder.path.glob("samples/*/samples.json"))
        return {
            file.parent.name: {
                f"sample/{k}": v for k, v in read_json(file)["sets"]["samples"].items() if v
            }
            for file in found
        }


class Watch:
    """All runs that some folders hold; a sweep's jobs join as they begin.

    Raises:
        FileNotFoundError: if one is no run, no sweep and not empty.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.watched: dict[Path, Watched] = {}
        for folder in [folder for name in self.names for folder in _runs(name)]:
            self._join(folder)

    def look(self) -> None:
        """Reads what is new."""
        for name in self.names:
            if not RunFolder(Path(name)).config_file.is_file():
                for folder in _begun(name):
                    self._join(folder)
        for watched in self.watched.values():
            watched.look()

    @property
    def behind(self) -> bool:
        """Whether there is more to read at once."""
        return any(watched.tail.behind for watched in self.watched.values())

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return not self.behind and all(watched.is_over for watched in self.watched.values())

    def states(self) -> list[dict[str, Any]]:
        """Of every run, without its curves."""
        runs = list(self.watched.values())
        names = folder_names([watched.folder for watched in runs])
        typed = [watched.folder.overrides() for watched in runs]
        shared = set(typed[0]).intersection(*typed)
        return [
            watched.state(name) | {"apart": " ".join(o for o in overrides if o not in shared)}
            for watched, name, overrides in zip(runs, names, typed, strict=True)
        ]

    def _join(self, folder: RunFolder) -> None:
        if any(folder.path in other.parents for other in self.watched):
            return
        for other in folder.path.parents:  # an empty folder has become a sweep
            self.watched.pop(other, None)
        self.watched.setdefault(folder.path, Watched(folder))


def _runs(name: str) -> list[RunFolder]:
    path = Path(name)
    if path.is_dir() and not any(path.iterdir()):  # a training is about to begin
        return [RunFolder(path)]
    return runs_in(name)


def _begun(name: str) -> list[RunFolder]:
    try:
        return _runs(name)
    except FileNotFoundError:  # between making its folder and writing its configuration
        return []


def _value(row: Row, line: Line) -> float:
    return row[line.key] - (row[line.minus] if line.minus else 0.0)


def _get(config: DictConfig | None, key: str, default: Any) -> Any:
    return default if config is None else OmegaConf.select(config, key, default=default)
