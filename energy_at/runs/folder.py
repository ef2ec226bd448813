"""A run folder: configuration, environment, metrics, checkpoints, results.

The only place that knows its file names, except ``metrics.csv``, which its logger knows too.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from energy_at.core.files import is_first, read_json, remove_parts, write_atomic
from energy_at.core.lock import locked
from energy_at.core.progress import printable
from energy_at.core.rules import integer, or_null
from energy_at.core.trust import require_trusted
from energy_at.runs.damage import damage_of_config, damage_of_results, load_config
from energy_at.runs.environment import environment
from energy_at.runs.metrics_log import MetricsLog, read_metrics_log

_ENVIRONMENT, _ERROR = "environment.json", "error.txt"
# Every name that a training writes in its folder.
_FILES = (
    *("config.yaml", _ENVIRONMENT, "metrics.csv", "results.json", ".evaluated.json", _ERROR),
    *(".lock", ".mlflow_run", ".metrics_columns", "delta_energy.png", "delta_energy.pdf"),
    *(f"checkpoints/{which}.ckpt" for which in ("last", "best", "healthy")),
)
_WHY_MISSING = {
    "healthy": "no epoch of it was healthy, or callbacks.sentinel.action=warn kept none"
}


class _File:
    """The path of a file, or a folder, inside the run folder."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run: "RunFolder", kind: type["RunFolder"]) -> Path:
        return run.path / self.name


@dataclass(frozen=True)
class RunFolder:
    """The files of one training."""

    path: Path

    config_file = _File("config.yaml")
    environment_file = _File(_ENVIRONMENT)  # versions, machine, and the command line
    metrics_file = _File("metrics.csv")  # a row for each optimizer step, and for each validation
    checkpoints = _File("checkpoints")  # last.ckpt and best.ckpt; the sentinel adds healthy.ckpt
    results_file = _File("results.json")
    evaluated_file = _File(".evaluated.json")  # accuracies of a run that has not finished
    error_file = _File(_ERROR)  # one line: why the job of a sweep failed

    @staticmethod
    def create(
        path: str | Path,
        cfg: DictConfig,
        overrides: Sequence[str] = (),
        *,
        train_images: int | None = None,
    ) -> "RunFolder":
        """Starts a run: writes the resolved configuration and the environment.

        The number of training images is that from which ``watch`` estimates the duration. A run
        with the same overrides that was stopped before its first checkpoint starts over.

        Raises:
            ValueError: if the folder already holds a run.
        """
        folder = RunFolder(Path(path))
        if folder.config_file.exists():
            if not (folder.has_only_begun and set(folder.overrides()) <= set(overrides)):
                then = "starts it over" if folder.has_only_begun else "continues it"
                raise ValueError(
                    f"{path} already holds a run: resume={path} {then}, "
                    "hydra.run.dir=FOLDER starts a new one elsewhere"
                )
            folder.metrics_file.unlink(missing_ok=True)
            shutil.rmtree(folder.checkpoints, ignore_errors=True)
            remove_parts(folder.path)
        for left in (folder.metrics_file, folder.results_file, folder.checkpoints):
            if left.exists():
                raise ValueError(
                    f"{path} holds {left.name} of another run: choose another hydra.run.dir"
                )
        record = environment() | {"overrides": list(overrides), "train_images": train_images}
        write_atomic(folder.environment_file, json.dumps(record, indent=2) + "\n")
        write_atomic(folder.config_file, OmegaConf.to_yaml(cfg, resolve=True))
        return folder

    @staticmethod
    def open(path: str | Path) -> "RunFolder":
        """An existing run.

        Raises:
            FileNotFoundError: if the folder holds none.
        """
        folder = RunFolder(Path(path))
        if not folder.config_file.is_file():
            if (run := run_around(path)) is not None:
                raise FileNotFoundError(f"{path} lies in a run: name its folder, {run}")
            jobs = sorted(Path(path).glob(f"*/{_ENVIRONMENT}"), key=job_order)
            if jobs:
                raise FileNotFoundError(
                    f"{path} holds several runs: name one, such as {jobs[0].parent}"
                )
            raise FileNotFoundError(
                f"{path} is not a run folder: it has no {folder.config_file.name}; "
                "name the folder of a training or a sweep"
            )
        return folder

    def note_resume(self, cfg: DictConfig, changes: Sequence[str]) -> None:
        """Records the configuration and the overrides that a resumed run continues with.

        Results are of the shorter training: they are renamed first, so that a run with results has
        always done what its configuration asks for.
        """
        record = self.record()  # which may be damaged
        remove_parts(self.path)
        if changes and self.results_file.is_file():
            epochs = self.config().trainer.max_epochs
            self.results_file.rename(self.results_file.with_stem(f"results_{epochs}_epochs"))
        if changes:
            record["overrides"] = [*record.get("overrides", []), *changes]
            write_atomic(self.environment_file, json.dumps(record, indent=2) + "\n")
        write_atomic(self.config_file, OmegaConf.to_yaml(cfg, resolve=True))

    @property
    def has_only_begun(self) -> bool:
        """Whether the run was stopped before its first checkpoint, at the end of an epoch."""
        if self.has_checkpoint() or self.results_file.exists():
            return False
        if OmegaConf.select(self.config(to_build=False), "callbacks.last") is None:
            return True  # none is ever written
        with suppress(ValueError):  # of a damaged log: nothing was saved to be lost
            return not bool((self.log()["epoch"].values >= 1).any())
        return True

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps other processes from training in this folder.

        Raises:
            InUseError: if one does.
            ValueError: if a folder has the name of a file that a training writes, or the reverse.
        """
        self._require_free()
        with locked(self.path / ".lock", self.path) if is_first() else nullcontext():
            yield

    def _require_free(self) -> None:
        kept = "which a training makes there: move it elsewhere"
        if self.checkpoints.exists() and not self.checkpoints.is_dir():
            raise ValueError(f"{self.checkpoints} is a file, not the folder {kept}")
        for path in (self.path / name for name in _FILES):
            if path.is_dir():
                raise ValueError(f"{path} is a folder, not the file {kept}")

    @property
    def has_ended(self) -> bool:
        return self.results_file.is_file() or self.error_file.is_file()

    def config(self, *, to_build: bool = True) -> DictConfig:
        """The resolved configuration of the run.

        Raises:
            ValueError: if its file is damaged, or names anything to build that is not trusted;
                who only reads it, ``to_build=False``, needs no trust.
        """
        cfg = load_config(self.config_file)
        if not isinstance(cfg, DictConfig):
            raise ValueError(f"{self.config_file} is damaged: it holds no configuration")
        if why := damage_of_config(cfg):
            raise ValueError(f"{self.config_file}{why}")
        if to_build:
            require_trusted(cfg, of=self.config_file)
        return cfg

    def record(self) -> dict[str, Any]:
        """Versions, machine and overrides.

        Raises:
            ValueError: if the file is damaged.
        """
        if not self.environment_file.is_file():
            return {}
        then = "remove it, and its run is used without"
        try:
            record = read_json(self.environment_file)
        except ValueError as error:
            raise ValueError(f"{error}: {then}") from error
        images, typed = record.get("train_images"), record.get("overrides")
        if not (isinstance(typed, list) and all(isinstance(one, str) for one in typed)):
            raise ValueError(
                f"{self.environment_file} is damaged: overrides must be a list: {then}"
            )
        if or_null(integer(0)).broken_by(images):
            must = "train_images must be an integer"
            raise ValueError(f"{self.environment_file} is damaged: {must}: {then}")
        return record

    def overrides(self) -> list[str]:
        return list(self.record().get("overrides", []))

    def checkpoint(self, which: str = "last") -> Path:
        """Path of a checkpoint: ``last``, ``best`` or ``healthy``.

        Raises:
            FileNotFoundError: if the run has none of that name.
        """
        path = self.checkpoints / f"{which}.ckpt"
        if not path.is_file():
            why = _WHY_MISSING.get(which, "it has saved none yet")
            raise FileNotFoundError(f"{self.path} has no checkpoint {path.name}: {why}")
        return path

    def has_checkpoint(self, which: str = "last") -> bool:
        return (self.checkpoints / f"{which}.ckpt").is_file()

    def saved(self) -> dict[str, Path]:
        """Existing ``last`` and ``best`` checkpoints by file name."""
        found = [self.checkpoint(which) for which in ("last", "best") if self.has_checkpoint(which)]
        return {path.name: path for path in found}

    def log(self) -> MetricsLog:
        """The logged metrics; empty without a file, which is read again only if it changes."""
        if not self.metrics_file.is_file():
            return MetricsLog({})
        state = self.metrics_file.stat()
        return _read_once(self.metrics_file, state.st_mtime_ns, state.st_size)

    def results(self) -> dict[str, Any]:
        """Accuracies of the finished run.

        Raises:
            FileNotFoundError: if it has not finished.
            ValueError: if the file is damaged.
        """
        if not self.results_file.is_file():
            raise FileNotFoundError(
                f"{self.path} has not finished: resume={self.path} continues it"
            )
        results = read_json(self.results_file)
        if why := damage_of_results(results):
            raise ValueError(f"{self.results_file} is damaged: {why}")
        return results

    def write_results(self, results: dict[str, Any]) -> None:
        """Marks the run as finished."""
        write_atomic(self.results_file, json.dumps(results, indent=2) + "\n")
        self.evaluated_file.unlink(missing_ok=True)

    def evaluated(self) -> dict[str, Any]:
        """Accuracies that were evaluated before the run could finish, but for what is damaged."""
        with suppress(ValueError, FileNotFoundError):
            known = read_json(self.evaluated_file)
            return {k: v for k, v in known.items() if not damage_of_results({"last": v})}
        return {}

    def write_evaluated(self, accuracies: dict[str, Any]) -> None:
        write_atomic(self.evaluated_file, json.dumps(accuracies) + "\n")


def accuracies_in(results: Mapping[str, Any]) -> dict[str, float]:
    """Accuracies in ``results.json`` by ``last/test/acc/pgd20`` and similar keys."""
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

    A run inside another run, such as the classifier of its samples, is no job.
    """
    found = (RunFolder(file.parent) for file in Path(path).rglob(_ENVIRONMENT))
    runs = [run for run in found if run.config_file.is_file()]
    places = {run.path for run in runs}
    runs = [run for run in runs if not places.intersection(run.path.parents)]
    return sorted(runs, key=lambda run: job_order(run.path))


def run_around(path: str | Path) -> Path | None:
    """The run folder that a file in it, such as a checkpoint, or a folder lies in."""
    near = [*Path(path).parents][:2]
    return next((p for p in near if RunFolder(p).config_file.is_file()), None)


def runs_in(path: str | Path) -> list[RunFolder]:
    """The run itself, or every run of a sweep, in the order of its jobs.

    Raises:
        FileNotFoundError: if the folder is neither.
    """
    if RunFolder(Path(path)).config_file.is_file():
        return [RunFolder(Path(path))]
    return runs_below(path) or [RunFolder.open(path)]


def failures(sweep: str | Path) -> list[tuple[Path, str]]:
    """Folders of the jobs that failed, each with its error in one line."""
    files = sorted(Path(sweep).rglob(_ERROR), key=job_order)
    lines = [" ".join(file.read_text(errors="replace").split()) for file in files]
    return [(file.parent, printable(line)) for file, line in zip(files, lines, strict=True)]


def folder_names(runs: Sequence[RunFolder]) -> list[str]:
    """Folder names if they differ, else the paths as they were written."""
    short = [run.path.name for run in runs]
    names = short if len(set(short)) == len(short) else [str(run.path) for run in runs]
    return [printable(name) for name in names]


def job_order(path: Path) -> list[str]:
    """Sorts job 2 before job 10."""
    return [part.zfill(9) for part in path.parts]


@lru_cache(maxsize=64)
def _read_once(path: Path, changed: int, size: int) -> MetricsLog:
    del changed, size  # part of the key
    return read_metrics_log(path)
