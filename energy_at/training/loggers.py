"""Loggers: ``metrics.csv``, and Weights & Biases, which may fail without stopping a training."""

import csv
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from lightning.fabric.loggers.logger import _DummyExperiment as DummyExperiment
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from energy_at.core.files import write_atomic
from energy_at.reporting.panels import METRICS
from energy_at.reporting.wandb_workspace import STEP, has_wandb_key, is_reachable, server
from energy_at.runs.metrics_log import columns_file

Cell = str | float | int

SUMMARIES = {line.key: line.summary for line in METRICS.values() if line.summary != "last"}
INIT = 30.0  # seconds to begin a run
FINISH = 60.0  # seconds to upload the rest at the end of a training


class MetricsCSV(Logger):
    """One row for each call; columns are added as metrics appear; a resumed run appends its rows.

    Lightning's own CSV logger deletes the file of the run that it resumes.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._columns: list[str] = []
        self._rows = -1  # those in the file, once it was looked at
        self._step = 0  # of the last row
        self._pending: list[dict[str, Cell]] = []

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> None:
        """None: a run folder holds one file."""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the run folder holds the configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds a row, which ``save`` writes; without a step, it has that of the row before."""
        row: dict[str, Cell] = {k: _cell(k, value) for k, value in metrics.items() if k != "step"}
        if self._rows < 0:
            self._look()
        self._step = self._step if step is None else round(step)
        self._pending.append({"step": self._step} | row)

    @rank_zero_only
    def save(self) -> None:
        """Appends the rows that are not yet in the file."""
        if self._rows < 0:
            self._look()
        rows, self._pending = self._pending, []
        new = [k for k in dict.fromkeys(k for row in rows for k in row) if k not in self._columns]
        if new:
            self._add_columns(new)
        if rows:
            with self._open("a") as file:
                csv.DictWriter(file, self._columns, lineterminator="\n").writerows(rows)
            self._rows += len(rows)

    def finalize(self, status: str) -> None:
        self.save()

    def count(self) -> int:
        """Number of rows, which outlast a power failure from here on."""
        self.save()
        if self._rows:
            with self._open("a") as file:
                os.fsync(file.fileno())
        return self._rows

    def truncate(self, rows: int) -> None:
        """Drops all rows after the first ``rows``: a run resumed there writes them again."""
        self.save()
        content = self.path.read_bytes() if self.path.exists() else b""
        kept = b"".join(content.splitlines(keepends=True)[: rows + 1])
        if rows and kept != content:  # else the columns are written again too
            write_atomic(self.path, kept)
        elif not rows:
            self.path.unlink(missing_ok=True)
        self._rows = -1

    def _look(self) -> None:
        lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []
        self._columns = next(csv.reader([lines[0].decode()])) if lines else []
        self._rows = max(0, len(lines) - 1)
        last = lines[-1].partition(b",")[0] if lines else b""
        self._step = int(last) if last.isdigit() else 0

    @contextmanager
    def _open(self, mode: str) -> Iterator[IO[str]]:
        """The file; an ``OSError`` of a write, such as of a full disk, names it too."""
        try:
            with self.path.open(mode, newline="") as file:
                yield file
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _add_columns(self, new: list[str]) -> None:
        old = self._columns
        self._columns = old + new
        lines = [_line(self._columns)]
        if old:
            with self._open("r") as file:
                lines += [line.rstrip("\r\n") + "," * len(new) for line in list(file)[1:]]
        write_atomic(columns_file(self.path), "\n".join(self._columns) + "\n")
        write_atomic(self.path, "\n".join(lines) + "\n")


def csv_logger(folder: str | Path) -> MetricsCSV:
    """Rows of steps and validations in ``metrics.csv`` of a folder."""
    return MetricsCSV(Path(folder) / "metrics.csv")


def _line(cells: Sequence[str]) -> str:
    """A line of the file: in quotes, what holds a comma."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def _cell(name: str, value: float) -> Cell:
    return int(value) if name == "epoch" else float(f"{float(value):.7g}")


class TolerantWandb(WandbLogger):
    """W&B that is disabled by its first failure, with one line on the terminal.

    Args:
        mode: ``online``, ``offline``, or another mode of wandb.
        why_offline: Printed when the run begins: until then anything may still be refused.
        log_checkpoints: Whether the last and the best checkpoint become an artifact after training.
        options: Arguments of Lightning's logger or of ``wandb.init``; ``id`` resumes that run.
    """

    def __init__(
        self,
        *,
        mode: str,
        log_checkpoints: bool = False,
        why_offline: str | None = None,
        **options: Any,
    ) -> None:
        settings = {"init_timeout": INIT, "finish_timeout": FINISH, "silent": mode == "offline"}
        super().__init__(mode=mode, settings=settings | options.pop("settings", {}), **options)
        self._wandb_init.pop("anonymous")  # deprecated by wandb, whatever its value
        self.log_checkpoints = log_checkpoints
        self._why_offline = why_offline
        self._failed: Any = None  # a run

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, begun when first needed; after a failure, one that does nothing."""
        if self._experiment is None:
            self._experiment = self._begin()
            if not isinstance(self._experiment, DummyExperiment):
                self._id = self._experiment.id
        return self._experiment

    @property
    def version(self) -> str | None:
        return self._id  # even if the run has failed since; None if it never began

    @contextmanager
    def tolerate(self) -> Iterator[None]:
        """Disables W&B if anything is raised."""
        try:
            yield
        except Exception as error:
            if not isinstance(self._experiment, DummyExperiment):
                _print(f"W&B has failed and is disabled from here on: {_one_line(error)}")
                nothing: Any = DummyExperiment()
                self._failed, self._experiment = self._experiment, nothing

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        with self.tolerate():
            super().log_metrics(metrics, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        with self.tolerate():
            super().log_hyperparams(params)

    @rank_zero_only
    def log_summary(self, values: Mapping[str, float | str]) -> None:
        with self.tolerate():
            self.experiment.summary.update(dict(values))

    @rank_zero_only
    def alert(self, title: str, text: str) -> None:
        with self.tolerate():
            self.experiment.alert(title=title, text=text, level="WARN")

    @rank_zero_only
    def log_figure(self, path: Path) -> None:
        """Shows a PNG file under its name."""
        import wandb

        with self.tolerate():
            self.experiment.log({f"figures/{path.stem}": wandb.Image(str(path))})

    @rank_zero_only
    def log_artifact(self, files: Mapping[str, Path]) -> None:
        """Uploads the checkpoints, if ``log_checkpoints``."""
        if not self.log_checkpoints or not files:
            return
        import wandb

        with self.tolerate():
            artifact = wandb.Artifact(f"checkpoints-{self.experiment.id}", type="model")
            for name, path in files.items():
                artifact.add_file(str(path), name=name)
            self.experiment.log_artifact(artifact)

    @rank_zero_only
    def finish(self) -> None:
        """Ends the run; waits at most ``FINISH`` seconds for uploads."""
        if self._experiment is not None:
            with self.tolerate():
                self._experiment.finish()
        if self._failed is None:
            return
        import wandb

        for end in (self._failed.finish, wandb.teardown):  # else the next run of the process would
            with suppress(Exception):  # resume it, and the exit would print a traceback
                end()

    def _begin(self) -> Any:
        """A run, offline if the server refuses it."""
        import wandb

        if self._why_offline is not None:
            _print_offline(self._why_offline, self.save_dir or ".")
            self._why_offline = None
        try:
            run = wandb.init(**self._wandb_init)
            run.define_metric(STEP)  # the x axis
            run.define_metric("*", step_metric=STEP, step_sync=True)
            for name, summary in SUMMARIES.items():
                run.define_metric(name, step_metric=STEP, step_sync=True, summary=summary)
            return run
        except Exception as error:
            if self._wandb_init["mode"] == "offline":
                _print(f"W&B has failed and is disabled: {_one_line(error)}")
                return DummyExperiment()
            _print_offline(_one_line(error), self.save_dir or ".")
        self._wandb_init["mode"] = "offline"
        self._wandb_init["settings"]["silent"] = True
        return self._begin()


def wandb_logger(
    folder: str | Path, *, project: str, mode: str | None = None, **options: Any
) -> TolerantWandb:
    """W&B, online if an API key is configured and the server answers, otherwise offline.

    ``mode`` is ``online``, ``offline`` or ``disabled``, as in ``WANDB_MODE``; ``options`` are
    arguments of ``TolerantWandb`` or of ``wandb.init``.
    """
    mode = mode or os.environ.get("WANDB_MODE") or "online"
    reason = None
    if mode == "online" and not has_wandb_key():
        reason = "no API key is configured"
    elif mode == "online" and not is_reachable(server()):
        reason = f"{server()} does not answer"
    return TolerantWandb(
        save_dir=str(Path(folder).absolute()),  # the process of wandb may have another one
        project=project,
        mode=mode if reason is None else "offline",
        why_offline=reason,
        **options,
    )


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _print_offline(reason: str, folder: str | Path) -> None:
    place = Path(os.path.relpath(folder)) / "wandb" / "offline-run-*"
    _print(f"W&B runs offline: {reason}; 'wandb sync {place}' uploads it later")


@rank_zero_only
def _print(line: str) -> None:
    sys.stderr.write(line + "\n")
