"""A finished run as tables and figures need it, and the finished runs of a sweep."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from energy_at.overfitting.alarms import PGD_ACCURACY, find_column
from energy_at.overfitting.onset import RunStatus, is_chance, status_of
from energy_at.reporting.panels import Metric
from energy_at.runs.folder import RunFolder, failures, runs_below, runs_in
from energy_at.runs.metrics_log import MetricsLog


@dataclass(frozen=True)
class FinishedRun:
    """A run folder with results."""

    folder: RunFolder

    @cached_property
    def config(self) -> DictConfig:
        return self.folder.config(to_build=False)

    @cached_property
    def log(self) -> MetricsLog:
        """Raises ``ValueError`` if steps are lost: no curve ends before its training."""
        log = self.folder.log()
        if lost := lost_rows(log, self.results):
            raise ValueError(f"{self.folder.metrics_file} is damaged: {lost}: restore the file")
        return log

    @cached_property
    def results(self) -> dict[str, Any]:
        return self.folder.results()

    @cached_property
    def status(self) -> RunStatus:
        return run_status(self.log, self.config, self.results)

    def mark(self, checkpoint: str = "last") -> str:
        """``collapsed`` or ``not robust`` if a checkpoint is no result, else empty.

        A checkpoint from before a collapse is a result.
        """
        known = {"last": math.inf, "healthy": 0.0}  # of an epoch without a signal
        step = known.get(checkpoint, self.results.get(checkpoint, {}).get("step", math.inf))
        return "" if self.status.is_result(step) else self.status.kind

    @property
    def is_marked(self) -> bool:
        """Whether it lost its robustness at some step, or never had it."""
        return self.status.kind not in ("robust", "not logged")

    def status_at(self, checkpoint: str) -> str:
        """Status of a checkpoint: the best one of a run that collapsed later is ``robust``."""
        kind = self.status.kind
        from_before = checkpoint != "last" and not self.mark(checkpoint)
        return "robust" if kind in ("collapsed", "overfitted") and from_before else kind

    @property
    def usable(self) -> str | None:
        """The checkpoint to use: where robustness was lost, one from before, if there is one."""
        monitor = str(OmegaConf.select(self.config, "callbacks.best.monitor"))
        if not self.is_marked or self.status.kind == "not robust":
            return None if self.is_marked else "last"
        if "/acc/pgd" in monitor and self.folder.has_checkpoint("best"):
            return "best"  # the most robust one, so from before
        if self.folder.has_checkpoint("healthy"):
            return "healthy"
        return "last" if self.status.is_result() else None

    def advice(self) -> str:
        """``collapsed at step 396: use which=best, ...``; empty if the last network is a result."""
        if self.usable in ("best", "healthy"):
            return f"{self.status}: use which={self.usable}, its checkpoint from before"
        return f"{self.status}: no checkpoint of this run is robust" if not self.usable else ""

    @property
    def checkpoints(self) -> list[str]:
        return [name for name in self.results if name in ("last", "best")]

    @property
    def evaluated(self) -> list[tuple[str, str, dict[str, float]]]:
        return [
            (checkpoint, images, shares)
            for checkpoint in self.checkpoints
            for images, shares in self.results[checkpoint].items()
            if images != "step"
        ]

    @property
    def final(self) -> str:
        """The last checkpoint if it was evaluated, else the best one."""
        return "last" if "last" in self.results else "best"

    def percent(self, checkpoint: str, name: str) -> float | None:
        """A test accuracy in percent; ``None`` if it was not evaluated."""
        return percent(self.results.get(checkpoint, {}).get("test", {}), name)

    def held_out_percent(self) -> float | None:
        """PGD accuracy of the final network on held-out images; ``None`` if it is missing.

        From its evaluation, or else from the last validation.
        """
        final = self.results.get(self.final, {})
        evaluated = percent(final.get("val", {}), "pgd20")
        if evaluated is not None:
            return evaluated
        curve = self.log[PGD_ACCURACY]
        values = curve.values[curve.steps <= final.get("step", math.inf)]
        return 100 * float(values[-1]) if len(values) else None

    def score(self) -> float | None:
        """What a search maximizes: PGD accuracy of the final network on held-out images.

        0 for a run whose accuracies are no result; ``None`` if there is no accuracy.
        """
        held_out = self.held_out_percent()
        if held_out is None:
            return None
        return 0.0 if self.mark() else held_out / 100

    def last_epoch_mean(self, metric: Metric) -> float | None:
        """Mean of a training metric over the last epoch, in its unit; ``None`` if not logged."""
        mean = self.log.last_epoch_mean(metric.key)
        return None if math.isnan(mean) else metric.scale * mean

    @property
    def steps(self) -> int | None:
        steps = self.log["train/loss"].steps
        return int(steps[-1]) if len(steps) else None

    @property
    def first_alarms(self) -> list[tuple[str, int]]:
        """Step of the first alarm of each kind that the sentinel raised, in the order of steps."""
        first: dict[str, int] = {}
        for kind, step in self.log.alarms:
            first.setdefault(kind, step)
        return list(first.items())

    @property
    def without_alarm(self) -> str:
        watched = OmegaConf.select(self.config, "callbacks.sentinel") is not None
        return "none" if watched else "no sentinel"

    @property
    def typed_keys(self) -> list[str]:
        return [override.lstrip("+~").partition("=")[0] for override in self.folder.overrides()]


def percent(shares: Mapping[str, float], name: str) -> float | None:
    """Of an attack with whatever steps; ``None`` if it was not evaluated."""
    share = shares.get(find_column(shares, name))
    return None if share is None else 100 * share


def lost_rows(log: MetricsLog, results: Mapping[str, Any]) -> str:
    """Where a log ends before the training whose results these are, if it does."""
    rows, left = results.get("rows", 0), len(log["step"])
    if left < rows:
        return f"of its {rows} rows {left} are left"
    step, steps = results.get("last", {}).get("step", 0), log["train/loss"].steps
    if not len(steps) or steps[-1] >= step:
        return ""
    return f"it ends at step {int(steps[-1])}, and the training at step {step}"


def run_status(log: MetricsLog, config: DictConfig, results: Mapping[str, Any]) -> RunStatus:
    """Whether a training, finished or not, kept its robustness, by its validations.

    A run that logged none is ``not robust`` if its evaluation says so, on held-out images or else
    on test images; so is one whose average of weights, which its checkpoints hold, never left
    chance. The number of held-out images and chance, the share of their most frequent
    class, are in the results; before, those of the plan and of equally frequent classes hold.
    """
    held_out = results.get("held_out", {})
    images = held_out.get("images", config.dataset.val_size)
    chance = held_out.get("chance", 1 / config.dataset.classes)
    clean = {row["step"]: row for row in log.rows("val/acc/clean")}
    rows = [clean.get(row["step"], {}) | row for row in log.rows(PGD_ACCURACY)]
    steps = OmegaConf.select(config, "attack.steps", default=1)
    averaged = log[PGD_ACCURACY.replace("val/", "val_ema/")].values
    if len(averaged) and is_chance(averaged, images, chance).all():
        return RunStatus("not robust")
    status = status_of(rows, images, chance, single_step=steps <= 1)
    final = results.get("last") or results.get("best") or {}
    accuracies = final.get("val") or final.get("test") or {}
    attacked = percent(accuracies, "pgd20")
    if status.kind == "not logged" and attacked is not None:
        evaluated = status_of(
            [{"step": 0.0, PGD_ACCURACY: attacked / 100}], accuracies["n"], chance
        )
        return evaluated if evaluated.kind == "not robust" else status
    return status


def typed_keys(runs: Sequence[FinishedRun]) -> list[str]:
    return list(dict.fromkeys(key for run in runs for key in run.typed_keys))


def finished_runs(name: str) -> list[RunFolder]:
    """The run of this folder, or the finished ones of a sweep; others are named on stderr."""
    if not runs_below(name) and not RunFolder(Path(name)).config_file.is_file() and failures(name):
        return []
    runs = runs_in(name)
    running = [str(run.path) for run in runs if not run.has_ended]
    if len(runs) == 1 and running:
        return runs  # to be refused where its results are read
    if running:
        sys.stderr.write(f"not finished, left out: {', '.join(running)}\n")
    return [run for run in runs if run.results_file.is_file()]


def failed_jobs(name: str, *, alone: bool) -> list[str]:
    """A line for each failed job of a sweep; with its number only, if the sweep is the only one."""
    return [
        f"job {path.relative_to(name) if alone and path != Path(name) else path} failed: {why}"
        for path, why in failures(name)
    ]
