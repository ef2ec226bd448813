"""A study as a list of jobs, each a command: what is done is not done again."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from energy_at.core.files import read_json
from energy_at.reporting.finished_run import FinishedRun
from energy_at.runs.folder import RunFolder

BENCHMARK = "benchmark"


@dataclass(frozen=True)
class Job:
    """A command of the study.

    Attributes:
        name: Of the job.
        entry: The module that is run.
        argv: What is typed behind it.
        result: The file that it leaves when it is done.
    """

    name: str
    entry: str
    argv: tuple[str, ...]
    result: Path

    @property
    def is_done(self) -> bool:
        """Whether it has left its result."""
        return self.result.is_file()

    def command(self) -> tuple[str, ...]:
        """What is typed now: a training that was cut off is resumed."""
        run = RunFolder(self.result.parent)
        if self.entry == "energy_at.train" and run.has_checkpoint():
            return (self.entry, f"resume={run.path}")
        return (self.entry, *self.argv)


def jobs(cfg: DictConfig) -> list[Job]:
    """The benchmark, then each training and its evaluation in their order, then the samples.

    Raises:
        ValueError: if samples are wanted of a network that nobody trains.
    """
    if cfg.sampled is not None and cfg.sampled not in cfg.trainings:
        raise ValueError(f"sampled={cfg.sampled}: choose from {', '.join(cfg.trainings)}")
    out = Path(str(cfg.out))
    first = out / BENCHMARK
    found = [
        Job(
            BENCHMARK,
            "energy_at.benchmark",
            (*cfg.benchmark.split(), f"out={first}"),
            first / "benchmark.json",
        )
    ]
    for name, overrides in cfg.trainings.items():
        found += _trained_and_judged(cfg, str(name), list(overrides))
    if cfg.sampled is not None:
        samples = out / "samples"
        argv = (f"run={out / cfg.sampled}", *cfg.sample.split(), f"out={samples}")
        found.append(Job("samples", "energy_at.sample", argv, samples / "samples.json"))
    return found


def _trained_and_judged(cfg: DictConfig, name: str, overrides: Sequence[str]) -> Iterator[Job]:
    folder = Path(str(cfg.out)) / name
    root = (f"dataset.root={cfg.dataset_root}",)
    argv = (
        *cfg.train.split(),
        *overrides,
        *root,
        *cfg.overrides.split(),
        f"hydra.run.dir={folder}",
    )
    yield Job(name, "energy_at.train", argv, folder / "results.json")
    judged = folder / "judged"
    argv = (f"run={folder}", *cfg.evaluate.split(), f"out={judged}")
    yield Job(f"{name} judged", "energy_at.evaluate", argv, judged / "evaluation.json")


def work_off(
    todo: Sequence[Job],
    run: Callable[[Sequence[str]], int],
    done: Callable[[], object],
    time_left: Callable[[], bool],
) -> list[str]:
    """Runs the jobs that are not done, in their order.

    Args:
        todo: The jobs.
        run: Runs a command and returns its exit code.
        done: Is called after every job.
        time_left: Whether another job may begin.

    Returns:
        Names of the jobs that failed, or whose training did.
    """
    failed: list[str] = []
    for job in todo:
        if job.is_done:
            continue
        if not time_left():
            break
        if job.name.partition(" ")[0] in failed or run(job.command()) != 0:
            failed.append(job.name)
        done()
    return failed


def known(todo: Sequence[Job], machine: dict[str, Any]) -> dict[str, Any]:
    """All results so far, small enough to be kept beside the code."""
    found: dict[str, Any] = {"machine": machine, "jobs": {}}
    for job in todo:
        if job.is_done:
            found["jobs"][job.name] = {"command": [job.entry, *job.argv]} | _READERS[job.entry](
                job.result
            )
    return found


def write_known(found: dict[str, Any], folder: Path) -> Path:
    """Writes them to a file that is named after the device."""
    name = re.sub(r"[^a-z0-9]+", "_", found["machine"]["device"].lower()).strip("_")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    return path


def _trained(path: Path) -> dict[str, Any]:
    run = FinishedRun(RunFolder(path.parent))
    return {"fate": run.fate} | read_json(path)


def _judged(path: Path) -> dict[str, Any]:
    shares = read_json(path)["accuracies"]
    keys = ("label", "eps_text", "accuracy", "low", "high", "images")
    return {"accuracies": [{key: share[key] for key in keys} for share in shares]}


def _sampled(path: Path) -> dict[str, Any]:
    found = read_json(path)
    return {key: found[key] for key in ("n", "seconds", "extractor", "sets")}


_READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "energy_at.benchmark": read_json,
    "energy_at.train": _trained,
    "energy_at.evaluate": _judged,
    "energy_at.sample": _sampled,
}
