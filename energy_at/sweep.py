"""What a multirun leaves behind: one table, one figure, and a line for each job that failed."""

import atexit
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from energy_at.comparison import comparison_table, grouped, runs_table
from energy_at.figures import methods_figure, save
from energy_at.mistakes import ERROR_FILE, remove_empty
from energy_at.runs import RunFolder


class SweepSummary(Callback):
    """Compares the runs of a sweep when its last job is done."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Sees to it that a sweep that never starts leaves no folder."""
        atexit.register(_forget, Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Writes and prints the comparison; exit code 1 if a job failed."""
        folder = Path(config.hydra.sweep.dir)
        print(summary(folder))
        if any(folder.glob(f"*/{ERROR_FILE}")):
            sys.exit(1)


def summary(sweep: Path) -> str:
    """Writes ``comparison`` (Markdown, CSV, figure) and ``runs.csv`` of all finished runs.

    Returns:
        The table, the jobs that failed, and where the files are.
    """
    folders = [RunFolder(path.parent) for path in sorted(sweep.glob("*/config.yaml"), key=_number)]
    groups = grouped([folder for folder in folders if folder.results_file.is_file()])
    lines = [_written(sweep, groups)] if groups else ["no run has finished"]
    for path in sorted(sweep.glob(f"*/{ERROR_FILE}"), key=_number):
        lines.append(f"job {path.parent.name} failed: {path.read_text().strip()}")
    return "\n".join(lines)


def _written(sweep: Path, groups: dict[str, Any]) -> str:
    table, runs = comparison_table(groups), runs_table(groups)
    (sweep / "comparison.md").write_text(table.markdown() + "\n")
    (sweep / "comparison.csv").write_text(table.csv())
    (sweep / "runs.csv").write_text(runs.csv())
    curves = {name: [run.metrics for run in members] for name, members in groups.items()}
    save(methods_figure(curves), sweep / "comparison")
    return f"{table.markdown()}\nwritten to {sweep}/: comparison.md, .csv, .png, .pdf, runs.csv"


def _forget(sweep: Path) -> None:
    record = sweep / "multirun.yaml"
    if record.is_file() and list(sweep.iterdir()) == [record]:
        record.unlink()
        remove_empty(sweep)


def _number(path: Path) -> tuple[int, str]:
    name = path.parent.name
    return (int(name) if name.isdigit() else sys.maxsize, name)
