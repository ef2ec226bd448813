"""A run folder: configuration, environment, metrics, checkpoints, results.

The only place that knows its file names, but for ``metrics.csv``, which its logger owns too.
"""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from energy_at.core.files import read_json, write_atomic
from energy_at.runs.environment import environment
from energy_at.runs.metrics_log import Log, read_log

ERROR_FILE = "error.txt"  # in the folder of a job that failed
_ENVIRONMENT = "environment.json"
_WITHOUT = {  # why a run may have no such checkpoint
    "healthy": "no epoch of it was found healthy, or callbacks.sentinel.action=warn kept none"
}


@dataclass(frozen=True)
class RunFolder:
    """Everything that one training leaves behind."""

    path: Path

    @staticmethod
    def create(
        path: str | Path,
        cfg: DictConfig,
        overrides: Sequence[str] = (),
        *,
        train_images: int | None = None,
    ) -> "RunFolder":
        """Starts a run: writes the resolved configuration and the environment.

        Args:
            path: The folder.
            cfg: The configuration.
            overrides: What was typed to get it.
            train_images: How many there are, so that whoever watches knows how long it will take.

        Raises:
            ValueError: if the folder already holds a run.
        """
        folder = RunFolder(Path(path))
        if folder.config_file.exists():
            raise ValueError(
                f"{path} already holds a run: resume={path} continues it, "
                "hydra.run.dir=FOLDER starts a new one elsewhere"
            )
        for left in (folder.metrics_file, folder.results_file, folder.checkpoints):
            if left.exists():
                raise ValueError(
                    f"{path} holds {left.name} of another run: choose another hydra.run.dir"
                )
        folder.path.mkdir(parents=True, exist_ok=True)
        about = environment() | {"overrides": list(overrides), "train_images": train_images}
        write_atomic(folder.environment_file, json.dumps(about, indent=2) + "\n")
        write_atomic(folder.config_file, OmegaConf.to_yaml(cfg, resolve=True))
        return folder

    @staticmethod
    def open(path: str | Path) -> "RunFolder":
        """An existing run.

        Raises:
            FileNotFoundError: if the folder holds no run.
        """
        folder = RunFolder(Path(path))
        if not folder.config_file.is_file():
            jobs = sorted(Path(path).glob(f"*/{_ENVIRONMENT}"), key=lambda job: job_order(job))
            if jobs:
                raise FileNotFoundError(
                    f"{path} holds several runs: name one, such as {jobs[0].parent}"
                )
            raise FileNotFoundError(
                f"{path} is no run folder: it has no {folder.config_file.name}; "
                "name the folder that a training, or a sweep, has written"
            )
        return folder

    def note_resume(self, cfg: DictConfig, changes: Sequence[str]) -> None:
        """Writes down what a resumed run goes on with."""
        if changes and self.environment_file.is_file():
            about = json.loads(self.environment_file.read_text())
            about["overrides"] = [*about.get("overrides", []), *changes]
            write_atomic(self.environment_file, json.dumps(about, indent=2) + "\n")
        write_atomic(self.config_file, OmegaConf.to_yaml(cfg, resolve=True))

    def forget_start(self) -> None:
        """Makes room for a run that was stopped before it had a checkpoint to go on from."""
        for file in (self.config_file, self.environment_file, self.metrics_file):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def environment_file(self) -> Path:
        """Versions, machine, and the command that was typed."""
        return self.path / _ENVIRONMENT

    @property
    def metrics_file(self) -> Path:
        """One row for each optimizer step, and rows for each validation."""
        return self.path / "metrics.csv"

    @property
    def results_file(self) -> Path:
        """Accuracies of the finished run."""
        return self.path / "results.json"

    @property
    def error_file(self) -> Path:
        """One line that says why the job of a sweep failed."""
        return self.path / ERROR_FILE

    @property
    def checkpoints(self) -> Path:
        """Folder of ``last.ckpt`` and ``best.ckpt``; the sentinel adds ``healthy.ckpt``."""
        return self.path / "checkpoints"

    def config(self) -> DictConfig:
        """The configuration that the run was made with."""
        try:
            cfg = OmegaConf.load(self.config_file)
        except YAMLError as error:
            raise ValueError(f"{self.config_file} is damaged: it is no YAML") from error
        if not isinstance(cfg, DictConfig):
            raise ValueError(f"{self.config_file} is damaged: it holds no configuration")
        return cfg

    def overrides(self) -> list[str]:
        """What was typed to get the configuration; nothing where that is not known."""
        return list(self.record().get("overrides", []))

    def record(self) -> dict[str, Any]:
        """Versions, machine and command; nothing where they are not known."""
        return read_json(self.environment_file) if self.environment_file.is_file() else {}

    def checkpoint(self, which: str = "last") -> Path:
        """Path of a checkpoint.

        Raises:
            FileNotFoundError: if the run has none of that name.
        """
        path = self.checkpoints / f"{which}.ckpt"
        if not self.has_checkpoint(which):
            why = _WITHOUT.get(which, "it has saved none yet")
            raise FileNotFoundError(f"{self.path} has no checkpoint {path.name}: {why}")
        return path

    def has_checkpoint(self, which: str = "last") -> bool:
        """Whether there is one to go on from."""
        return (self.checkpoints / f"{which}.ckpt").is_file()

    def saved(self) -> dict[str, Path]:
        """Checkpoints that there are, by file name."""
        paths = [self.checkpoints / f"{which}.ckpt" for which in ("last", "best")]
        return {path.name: path for path in paths if path.is_file()}

    def metrics(self) -> list[dict[str, float]]:
        """Rows of ``metrics.csv``, without the cells that are empty.

        Raises:
            FileNotFoundError: if no step was logged.
        """
        if not self.metrics_file.is_file():
            raise FileNotFoundError(
                f"{self.path} has no {self.metrics_file.name}: logger=csv writes it"
            )
        with self.metrics_file.open(newline="") as file:
            return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]

    def log(self) -> Log:
        """The same as ``metrics``, by column, and many times faster; empty if nothing was logged.

        A file that does not change is read once.

        Raises:
            ValueError: if it is damaged.
        """
        if not self.metrics_file.is_file():
            return Log({})
        state = self.metrics_file.stat()
        return _log(self.metrics_file, state.st_mtime_ns, state.st_size)

    def results(self) -> dict[str, Any]:
        """Accuracies of the finished run.

        Raises:
            FileNotFoundError: if it has not finished.
        """
        if not self.results_file.is_file():
            raise FileNotFoundError(
                f"{self.path} has not finished: resume={self.path} continues it"
            )
        return read_json(self.results_file)

    def write_results(self, results: dict[str, Any]) -> None:
        """Keeps the accuracies of the finished run."""
        write_atomic(self.results_file, json.dumps(results, indent=2) + "\n")


def accuracies_in(results: Mapping[str, Any]) -> dict[str, float]:
    """``last/test/acc/pgd`` and its like, out of ``results.json``."""
    return {
        f"{which}/{images}/acc/{attack}": share
        for which in ("last", "best")
        for images, shares in results.get(which, {}).items()
        if isinstance(shares, Mapping)
        for attack, share in shares.items()
        if attack != "n"
    }


def runs_below(path: str | Path) -> list[RunFolder]:
    """Every run in a folder, in the order of its jobs.

    A run inside another, such as the classifier that judges its samples, is no job.
    """
    found = (RunFolder(file.parent) for file in Path(path).rglob(_ENVIRONMENT))
    runs = [run for run in found if run.config_file.is_file()]
    places = {run.path for run in runs}
    runs = [run for run in runs if not places.intersection(run.path.parents)]
    return sorted(runs, key=lambda run: job_order(run.path))


def failures(sweep: str | Path) -> list[tuple[Path, str]]:
    """Folders of the jobs that failed, begun or not, with the reason of each."""
    files = sorted(Path(sweep).rglob(ERROR_FILE), key=job_order)
    return [(file.parent, " ".join(file.read_text().split())) for file in files]


def runs_in(path: str | Path) -> list[RunFolder]:
    """The run itself, or every run of a sweep, in the order of its jobs.

    Raises:
        FileNotFoundError: if the folder is neither.
    """
    if RunFolder(Path(path)).config_file.is_file():
        return [RunFolder(Path(path))]
    return runs_below(path) or [RunFolder.open(path)]


def named_folders(names: Any) -> list[str]:
    """The folders that ``runs=FOLDER`` or ``runs=[FOLDER,FOLDER]`` names, as they were written.

    Raises:
        ValueError: if it names none.
    """
    found = [str(name) for name in names] if OmegaConf.is_list(names) else [str(names)]
    if not found:
        raise ValueError("runs=[] names no run: write runs=[FOLDER,FOLDER]")
    return found


def require_distinct(runs: Sequence[RunFolder]) -> None:
    """Refuses to count a run twice.

    Raises:
        ValueError: with its folder.
    """
    seen: set[Path] = set()
    for run in runs:
        if run.path.resolve() in seen:
            raise ValueError(f"runs=[...] names {run.path} twice: leave one out")
        seen.add(run.path.resolve())


def folder_names(runs: Sequence[RunFolder]) -> list[str]:
    """Folder names where they tell the runs apart, else their paths as typed."""
    short = [run.path.name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.path) for run in runs]


def job_order(path: Path) -> list[str]:
    """Sorts job 2 before job 10."""
    return [part.zfill(9) for part in path.parts]


@lru_cache(maxsize=64)
def _log(path: Path, changed: int, size: int) -> Log:
    """The log in a file of this age and size."""
    del changed, size
    return read_log(path)
