"""The summary of a sweep: one table, one figure, and a line for each job that failed."""

import atexit
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from energy_at.config.errors import one_line_errors
from energy_at.config.schema import check_start
from energy_at.core.files import remove_empty

if TYPE_CHECKING:  # Hydra makes the callback of every run: what reads runs and draws waits
    from energy_at.runs.folder import RunFolder


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
            _make("hydra.run.dir", _folder(config, "hydra.run.dir"))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Checks folders, sweeper and launcher; a sweep that never starts leaves no folder."""
        with one_line_errors():
            _require_own_folder(config.hydra.overrides.hydra)
            check_start(config)
            _require_folders_of_jobs(config)
            folder = _folder(config, "hydra.sweep.dir")
            atexit.register(_forget, folder)
            _require_room(folder)

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


def _require_own_folder(overrides: Sequence[str]) -> None:
    typed = [override for override in overrides if override.startswith("hydra.run.dir=")]
    if typed:
        _, _, folder = typed[0].partition("=")
        raise ValueError(
            f"{typed[0]} is where a single run is written: a sweep takes hydra.sweep.dir={folder}"
        )


def _folder(config: DictConfig, key: str) -> Path:
    value = OmegaConf.select(config, key)
    if value in (None, ""):
        raise ValueError(f"{key}={value or ''} must be the path of a folder, such as runs/mine")
    return Path(str(value))


def _require_folders_of_jobs(config: DictConfig) -> None:
    sweep = OmegaConf.to_container(config.hydra.sweep, resolve=False)  # jobs have no number yet
    subdir = sweep.get("subdir") if isinstance(sweep, dict) else None
    if subdir in (None, ""):
        raise ValueError(
            f"hydra.sweep.subdir={subdir or ''} must name a folder for each job, such as "
            "'${hydra.job.num}'"
        )


def _require_room(sweep: Path) -> None:
    """Refuses a folder that holds a run, or that cannot be made."""
    from energy_at.runs.folder import RunFolder

    if RunFolder(sweep).config_file.is_file():
        raise ValueError(
            f"hydra.sweep.dir={sweep} is the folder of a run: choose another for a sweep"
        )
    made = [folder for folder in (sweep, *sweep.parents) if not folder.exists()]
    _make("hydra.sweep.dir", sweep)
    for folder in made:
        with suppress(OSError):  # another process has begun to write there
            folder.rmdir()


def _make(key: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{key}={folder} cannot be made ({error.strerror}): choose another folder"
        ) from error


def summary(sweep: Path, compared: Callable[[Path], str | None] | None = None) -> str:
    """Compares all jobs of a sweep that have finished.

    Returns:
        The comparison, and the jobs that failed or were lost.
    """
    from energy_at.runs.folder import failures

    lines = [(compared or compare_runs)(sweep) or "no job has finished"]
    for run in unfinished(sweep):
        job = run.path.relative_to(sweep)
        lines.append(
            f"job {job} was lost: re-run the sweep with hydra.sweep.dir={sweep} to resume it"
        )
    lines += [f"job {path.relative_to(sweep)} failed: {why}" for path, why in failures(sweep)]
    return "\n".join(lines)


def unfinished(sweep: Path) -> list["RunFolder"]:
    """Runs that have neither results nor an error."""
    from energy_at.runs.folder import runs_below

    return [
        run
        for run in runs_below(sweep)
        if not (run.results_file.is_file() or run.error_file.is_file())
    ]


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


def _forget(sweep: Path) -> None:
    record = sweep / "multirun.yaml"
    if record.is_file() and list(sweep.iterdir()) == [record]:
        record.unlink()
        remove_empty(sweep)
