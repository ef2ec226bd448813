"""What a multirun leaves behind: one table, one figure, and a line for each job that failed."""

import atexit
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from energy_at.comparison import FILES, write_comparison
from energy_at.mistakes import ERROR_FILE, one_line_errors, remove_empty
from energy_at.runs import job_order, runs_below


class SweepSummary(Callback):
    """Compares the runs of a sweep when its last job is done."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Sees to it that a sweep that never starts leaves no folder."""
        atexit.register(_forget, Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Writes and prints the comparison; exit code 1 if a job failed."""
        folder = Path(config.hydra.sweep.dir)
        with one_line_errors():
            print(summary(folder))
        if any(folder.rglob(ERROR_FILE)):
            sys.exit(1)


def summary(sweep: Path) -> str:
    """Writes ``comparison`` (Markdown, CSV, figure) and ``runs.csv`` of all finished runs.

    Returns:
        The table, the jobs that failed, and where the files are.
    """
    finished = [folder for folder in runs_below(sweep) if folder.results_file.is_file()]
    lines = ["no run has finished"]
    if finished:
        lines = [write_comparison(finished, sweep), f"written to {sweep}/: {', '.join(FILES)}"]
    for path in sorted(sweep.rglob(ERROR_FILE), key=job_order):
        job = path.parent.relative_to(sweep)
        lines.append(f"job {job} failed: {path.read_text().strip()}")
    return "\n".join(lines)


def _forget(sweep: Path) -> None:
    record = sweep / "multirun.yaml"
    if record.is_file() and list(sweep.iterdir()) == [record]:
        record.unlink()
        remove_empty(sweep)
