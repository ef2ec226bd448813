"""The summary of a sweep: one table, one figure, and a line for each job that failed."""

import atexit
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from energy_at.config.errors import one_line_errors
from energy_at.config.schema import check_start
from energy_at.core.files import remove_empty

# Hydra makes the callback of every run: the imports of what reads runs and draws wait.


class SweepSummary(Callback):
    """Compares the jobs of a sweep when its last one is done.

    Args:
        of: What the jobs are: ``runs`` or ``samplings``.
    """

    def __init__(self, of: str = "runs") -> None:
        self.compare = {"runs": compare_runs, "samplings": compare_samplings}[of]

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Makes the folder of a single run, which Hydra would not name if it cannot be made."""
        with one_line_errors():
            _make("hydra.run.dir", config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Checks folders, sweeper and launcher; a sweep that never starts leaves no folder."""
        with one_line_errors():
            check_start(config)
            _require_folders(config.hydra)
            atexit.register(_forget, Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Writes and prints the comparison; exit code 1 if a job failed."""
        from energy_at.runs.folder import failures

        folder = Path(config.hydra.sweep.dir)
        if not folder.exists():  # W&B's agents will run the jobs
            return
        with one_line_errors():
            print(summary(folder, self.compare))
        if failures(folder) or unfinished(folder):
            sys.exit(1)


def _require_folders(hydra: DictConfig) -> None:
    """Refuses a folder that is of a single run or cannot be made, and jobs without folders."""
    from energy_at.runs.folder import RunFolder

    for override in hydra.overrides.hydra:
        if override.startswith("hydra.run.dir="):
            raise ValueError(
                f"{override} is where a single run is written: a sweep takes "
                f"hydra.sweep.dir={override.partition('=')[2]}"
            )
    sweep = hydra.sweep
    if not OmegaConf.is_interpolation(sweep, "subdir") and sweep.subdir in (None, ""):
        raise ValueError(
            "hydra.sweep.subdir= must name a folder for each job, such as '${hydra.job.num}'"
        )
    folder = Path(str(sweep.dir))
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    _make("hydra.sweep.dir", sweep.dir)
    for path in made:  # a folder that was there stays, be it empty
        with suppress(OSError):  # another process has begun to write there
            path.rmdir()
    if RunFolder(folder).config_file.is_file():
        raise ValueError(
            f"hydra.sweep.dir={folder} is the folder of a run: choose another for a sweep"
        )


def _make(key: str, folder: str | None) -> None:
    if folder in (None, ""):
        raise ValueError(f"{key}= must be the path of a folder, such as runs/mine")
    try:
        Path(str(folder)).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{key}={folder} cannot be made ({error.strerror}): choose another folder"
        ) from error


def _forget(sweep: Path) -> None:
    record = sweep / "multirun.yaml"
    if record.is_file() and list(sweep.iterdir()) == [record]:
        record.unlink()
        remove_empty(sweep)


def compare_runs(sweep: Path) -> str | None:
    """Writes ``comparison`` (Markdown, CSV, figure) and ``runs.csv`` of all finished runs."""
    from energy_at.reporting.comparison import FILES, grouped, write_comparison
    from energy_at.reporting.sweeps import write_sweep_curves
    from energy_at.runs.folder import runs_below

    finished = [folder for folder in runs_below(sweep) if folder.results_file.is_file()]
    if not finished:
        return None
    groups = grouped(finished)
    runs = [run for found in groups.values() for run in found]
    text = _with_files(write_comparison(groups, sweep), sweep, FILES)
    return "\n".join([text, *write_sweep_curves(runs, sweep)])


def compare_samplings(sweep: Path) -> str | None:
    """Writes ``tradeoff`` (Markdown, CSV, figure) of all finished samplings."""
    from energy_at.reporting.sweeps import TRADEOFF_FILES, samplings_below, write_tradeoff

    finished = samplings_below(sweep)
    return _with_files(write_tradeoff(finished, sweep), sweep, TRADEOFF_FILES) if finished else None


def _with_files(text: str, sweep: Path, names: Sequence[str]) -> str:
    return f"{text}\nwritten to {sweep}/: {', '.join(names)}"


def summary(sweep: Path, compare: Callable[[Path], str | None] = compare_runs) -> str:
    """The comparison of all jobs that have finished, and the jobs that failed or were lost."""
    from energy_at.runs.folder import failures

    lines = [compare(sweep) or "no job has finished"]
    again = f"re-run the sweep with hydra.sweep.dir={sweep} to resume it"
    lines += [f"job {path.relative_to(sweep)} was lost: {again}" for path in unfinished(sweep)]
    lines += [f"job {path.relative_to(sweep)} failed: {why}" for path, why in failures(sweep)]
    return "\n".join(lines)


def unfinished(sweep: Path) -> list[Path]:
    """Folders of runs that have neither results nor an error."""
    from energy_at.runs.folder import runs_below

    runs = runs_below(sweep)
    return [r.path for r in runs if not (r.results_file.is_file() or r.error_file.is_file())]
