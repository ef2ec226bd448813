"""The summary of a sweep: one table, one figure, and a line for each job that failed."""

import atexit
import sys
from pathlib import Path
from typing import Any, Literal

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from energy_at.config.errors import one_line_errors
from energy_at.config.schema import check_start
from energy_at.core.files import remove_empty, require_writable
from energy_at.core.progress import printable

# Hydra makes the callback of every run: the imports of what reads runs and draws wait.


class SweepSummary(Callback):
    """Compares the jobs of a sweep when its last one is done.

    Args:
        of: What the jobs are: ``runs`` or ``samplings``.
    """

    def __init__(self, of: Literal["runs", "samplings"] = "runs") -> None:
        self.of = of

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Checks the folder of a single run, which Hydra would not name if it cannot be made."""
        if self.of == "runs":  # a sampling checks out=
            with one_line_errors():
                key = "hydra.run.dir" if config.get("resume") is None else "resume"
                require_writable(key, config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Checks folders, sweeper and launcher; a sweep that never starts leaves no folder."""
        with one_line_errors():
            check_start(config)
            _require_folders(config.hydra)
            atexit.register(_forget, Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Writes and prints the comparison; exit code 1 if a job failed."""
        if sys.exc_info()[0] is not None:  # Hydra >= 1.4 comes here after an error, too
            return
        from energy_at.reporting.sweeps import summary, unfinished
        from energy_at.runs.folder import failures

        folder = Path(config.hydra.sweep.dir)
        if not folder.exists():  # W&B's agents will run the jobs
            return
        with one_line_errors():
            print(printable(summary(folder, self.of)))
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
    require_writable("hydra.sweep.dir", sweep.dir)
    folder = Path(str(sweep.dir))
    if RunFolder(folder).config_file.is_file():
        raise ValueError(
            f"hydra.sweep.dir={folder} is the folder of a run: choose another for a sweep"
        )


def _forget(sweep: Path) -> None:
    record = sweep / "multirun.yaml"
    if record.is_file() and list(sweep.iterdir()) == [record]:
        record.unlink()
        remove_empty(sweep)
