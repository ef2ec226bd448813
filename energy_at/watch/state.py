"""State of watched runs, read from their folders: progress, curves, alarms and results."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from energy_at.core.files import read_json
from energy_at.core.progress import printable
from energy_at.core.rules import is_number
from energy_at.overfitting.alarms import REPEATED
from energy_at.overfitting.onset import RunStatus
from energy_at.reporting.finished_run import lost_rows, run_status
from energy_at.reporting.panels import DELTA_X, METRICS, RATE, Metric
from energy_at.runs.folder import RunFolder, accuracies_in, folder_names, runs_in
from energy_at.runs.metrics_log import Curve, LogReader, MetricsLog

ROWS_AT_ONCE = 50  # that a training writes together: callbacks.energy.every
QUIET = 120.0  # seconds without a row that any training may need, to validate
BINS = 400  # of a curve


class WatchedRun:
    """One run folder, read as it grows."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.reader = LogReader(folder.metrics_file)
        self.version = 0  # changes with every new row
        self._config = OmegaConf.create()

    def update(self) -> None:
        if self.reader.read():
            self.version += 1
            for name in ("log", "metrics"):
                self.__dict__.pop(name, None)
        if self.reader.restarted:
            self._config = OmegaConf.create()

    @cached_property
    def log(self) -> MetricsLog:
        return self.reader.log()

    @cached_property
    def metrics(self) -> dict[str, Curve]:
        """Finite values of every metric that has any, in its unit."""
        curves = {name: _curve(self.log, metric) for name, metric in METRICS.items()}
        return {name: curve for name, curve in curves.items() if len(curve)}

    @property
    def step(self) -> int:
        return int(self._last("step"))

    @property
    def epoch(self) -> int:
        return int(self._last("epoch"))

    @property
    def rate(self) -> float:
        return self._last(RATE.key, math.nan)

    def _last(self, key: str, default: float = 0.0) -> float:
        values = self.log[key].values
        return float(values[-1]) if len(values) else default

    def _setting(self, key: str, default: Any = None) -> Any:
        """From its configuration, once it is written; a resumed run may have changed it."""
        if not self._config and self.folder.config_file.is_file():
            self._config = self.folder.config(to_build=False)
        return OmegaConf.select(self._config, key, default=default)

    def state(self, name: str) -> dict[str, Any]:
        steps, batch = self._steps(), self._setting("dataset.batch_size", 0)
        left = (steps - self.step) * batch / self.rate if steps and self.rate > 0 else None
        path = self.folder.metrics_file
        age = max(0.0, time.time() - path.stat().st_mtime) if path.is_file() else None
        results = self.folder.results() if self.folder.results_file.is_file() else {}
        robustness = RunStatus("not logged")
        if self._config:
            robustness = run_status(self.log, self._config, results)
        yet = ", not robust yet" if robustness.kind == "not robust" else ""
        marks = [_mark("alarm", *alarm, yet) for alarm in self.log.alarms]
        marks += [_mark("onset", *onset) for onset in robustness.onsets.items()]
        status, detail = self._status(steps, age, batch, robustness)
        if lost := lost_rows(self.log, results):
            detail = f"{path.name} is damaged: {lost}"
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
            "last": {name: float(curve.values[-1]) for name, curve in self.metrics.items()},
            "marks": marks,
            "results": self._results(results),
            "is_result": robustness.is_result(),
            "samplings": self._samplings(),
            "version": self.version,
        }

    def curves(self) -> dict[str, list[list[float]]]:
        """At most ``BINS`` bins of every metric: step, lowest, mean and highest value."""
        bins = {name: curve.binned(BINS) for name, curve in self.metrics.items()}
        return {
            name: [
                [float(f"{value:.5g}") for value in point]
                for point in zip(found.steps, found.low, found.mean, found.high, strict=True)
            ]
            for name, found in bins.items()
        }

    def _status(
        self, steps: int | None, age: float | None, batch: int, robustness: RunStatus
    ) -> tuple[str, str]:
        if self.folder.error_file.is_file():
            return "failed", printable(self.folder.error_file.read_text(errors="replace").strip())
        if self.folder.results_file.is_file():
            return "finished", str(robustness)
        if age is None or not self.step:
            return "waiting", "no step yet"
        if age > max(QUIET, 3 * ROWS_AT_ONCE * batch / (self.rate or math.nan)):
            return "silent", "stopped, or stuck"
        doing = "evaluating" if steps and self.step >= steps else "training"
        return doing, "not robust yet" if robustness.kind == "not robust" else ""

    def _epochs(self) -> int | None:
        """Of the whole training, with those that a rollback repeats."""
        planned = self._setting("trainer.max_epochs")
        return None if planned is None else planned + int(self._last(REPEATED))

    def _steps(self) -> int | None:
        """Of the whole training; known from its first epoch, or from the size of its data."""
        epochs, batch = self._epochs(), self._setting("dataset.batch_size")
        images = self.folder.record().get("train_images")
        if self.epoch > 0:
            step = self.log["step"]
            per_epoch = int(step.values[step.epochs == 0].max(initial=0))
        elif images and batch and self._setting("trainer.limit_train_batches") is None:
            per_epoch = -(-images // batch)
        else:
            return None
        steps, most = per_epoch * (epochs or 0), self._setting("trainer.max_steps", -1)
        return (min(steps, most) if most > 0 else steps) or None

    def _results(self, results: Mapping[str, Any]) -> dict[str, float]:
        if not results:
            return {}
        found = {key: 100 * share for key, share in accuracies_in(results).items()}
        found["reg.weight"] = float(self._setting("reg.weight", 0.0))
        if DELTA_X.name in self.metrics:
            found[f"{DELTA_X.key}.max"] = float(self.metrics[DELTA_X.name].values.max())
        return found

    def _samplings(self) -> dict[str, dict[str, float]]:
        files = sorted(self.folder.path.glob("samples/*/samples.json"))
        scores = {file.parent.name: _scores(file) for file in files}
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
        return any(run.reader.behind for run in self.runs.values())

    @property
    def has_ended(self) -> bool:
        return not self.behind and all(run.folder.has_ended for run in self.runs.values())

    def states(self) -> list[dict[str, Any]]:
        """Of every run, without its curves; ``overrides`` are those that not all runs share."""
        runs = list(self.runs.values())
        names = folder_names([run.folder for run in runs])
        typed = [run.folder.overrides() for run in runs]
        shared = set(typed[0]).intersection(*typed)
        return [
            run.state(name) | {"overrides": printable(" ".join(o for o in own if o not in shared))}
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


def _mark(kind: str, name: str, step: int, end: str = "") -> dict[str, Any]:
    text = f"{name} by held-out PGD accuracy since" if kind == "onset" else f"alarm: {name} at"
    return {"name": name, "step": step, "kind": kind, "text": f"{text} step {step:,}{end}"}


def _scores(file: Path) -> dict[str, float]:
    """IS, FID and others of a set of samples; null where they were not measured."""
    sets = read_json(file).get("sets")
    found = sets.get("samples") if isinstance(sets, dict) else None
    if not (isinstance(found, dict) and all(v is None or is_number(v) for v in found.values())):
        raise ValueError(f"{file} is damaged: it holds no scores of samples")
    return found


def _curve(log: MetricsLog, metric: Metric) -> Curve:
    """Finite values of a metric, or of the difference of two where both were logged."""
    curve = log[metric.key]
    steps, epochs, values = curve.steps, curve.epochs, curve.values
    if metric.minus:
        minus = log[metric.minus]
        steps, ours, theirs = np.intersect1d(steps, minus.steps, return_indices=True)
        epochs, values = epochs[ours], values[ours] - minus.values[theirs]
    finite = np.isfinite(values)
    return Curve(steps[finite], epochs[finite], metric.scale * values[finite])
