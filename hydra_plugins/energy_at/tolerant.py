"""A launcher whose lost jobs do not end the sweep."""

import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

WRITTEN_FIRST = ("environment.json", "config.yaml")  # by a job that begins, or goes on
LOSSES = {  # what launchers raise when the process of a job is gone, by name: few are installed
    "BrokenExecutor",
    "UncompletedJobError",
    "WorkerCrashedError",
    "OutOfMemoryError",
    "NodeDiedError",
    "LocalRayletDiedError",
    "ObjectLostError",
}
ANSWERS = {"FailedJobError"}  # a process that lived to say what was wrong
Place = Callable[[Sequence[str], int], Path]


def launched(
    launcher: Launcher, config: DictConfig, jobs: Sequence[Sequence[str]], first: int, place: Place
) -> Sequence[JobReturn]:
    """What jobs return; nothing if they were lost twice.

    A job answers its own mistakes. What is raised here has killed one, such as a node that ran out
    of memory, or has kept all from starting: the latter is for the user to mend. All that have not
    finished are started once more, and go on where they were. In a pool, one process that is
    killed ends those beside it, and jobs that wait: lost again, each runs alone.

    Args:
        launcher: What starts them.
        config: Of the sweep.
        jobs: Overrides of each.
        first: Number of the first.
        place: The folder of a job, from its overrides and its number.
    """
    sweep = Path(str(config.hydra.sweep.dir))
    before = _begun(sweep)
    error = _tried(launcher, jobs, first)
    if not isinstance(error, Exception):
        return error
    if not (is_loss(error) or _begun(sweep) != before):
        raise error
    _say(error, "those that have not finished go on once more")
    _await_others(error)
    error = _tried(launcher, jobs, first)
    if not isinstance(error, Exception):
        return error
    found: Sequence[JobReturn] = []
    if isinstance(error, BrokenExecutor) and len(jobs) > 1 and _begun(sweep) != before:
        _say(error, "those that have not finished go on one by one")
        found = [_alone(launcher, job, first + i) for i, job in enumerate(jobs)]
    else:
        _say(error, "no more is tried")
        _await_others(error)
    _note_lost(sweep, [(place(job, first + i), job) for i, job in enumerate(jobs)])
    return found


def is_loss(error: BaseException) -> bool:
    """Whether a launcher says with it that a process of a job is gone."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & LOSSES) and not names & ANSWERS


def places(context: HydraContext, config: DictConfig) -> Place:
    """Where the jobs of a sweep write."""

    def place(job: Sequence[str], number: int) -> Path:
        composed = context.config_loader.load_sweep_config(config, list(job))
        with open_dict(composed):
            composed.hydra.job.num = number
            composed.hydra.job.id = f"{composed.hydra.job.name}_{number}"
        keys = ("hydra.sweep.dir", "hydra.sweep.subdir")
        return Path(*(str(OmegaConf.select(composed, key)) for key in keys))

    return place


def _tried(
    launcher: Launcher, jobs: Sequence[Sequence[str]], first: int
) -> Sequence[JobReturn] | Exception:
    try:
        found: Sequence[JobReturn] = launcher.launch(jobs, initial_job_idx=first)
        return found
    except SystemExit as stop:
        # That of a worker, which joblib raises here too; a Ctrl-C is meant for the whole sweep.
        if stop.__cause__ is None or stop.code == 128 + signal.SIGINT:
            raise
        return BrokenExecutor(f"a worker ended with exit code {stop.code}")
    except Exception as error:
        return error


def _alone(launcher: Launcher, job: Sequence[str], number: int) -> JobReturn:
    found = _tried(launcher, [job], number)
    if not isinstance(found, Exception):
        return found[0]
    _say(found, f"job {number} is given up")
    return JobReturn(_return_value=None, status=JobStatus.COMPLETED)


def _await_others(error: Exception) -> None:
    """Waits for jobs beside a lost one: submitit tells of it while they still run.

    Started again they would write where they are writing. It hands its jobs to nobody else.
    """
    trace = error.__traceback__
    while trace is not None:
        for job in trace.tb_frame.f_locals.get("jobs", ()):
            if hasattr(job, "wait"):
                job.wait()
        trace = trace.tb_next


def _begun(sweep: Path) -> dict[Path, int]:
    """When jobs have last begun or gone on."""
    found = {}
    for name in WRITTEN_FIRST:
        for file in sweep.rglob(name):
            with suppress(FileNotFoundError):  # of a job that begins anew
                found[file] = file.stat().st_mtime_ns
    return found


def _say(error: Exception, then: str) -> None:
    line = " ".join(str(error).split()).partition(". ")[0]
    said = f"{type(error).__name__}: {line[:300]}"
    sys.stderr.write(f"error: a job was lost: {said}; {then}\n")


def _note_lost(sweep: Path, jobs: Sequence[tuple[Path, Sequence[str]]]) -> None:
    """Leaves a line where a job was to run that has written nothing: no folder tells of it."""
    from energy_at.runs.folder import RunFolder, runs_below

    again = f"hydra.sweep.dir={sweep}"
    known = [sorted(run.overrides()) for run in runs_below(sweep)]
    for folder, job in jobs:
        if sorted(job) in known or (folder.is_dir() and any(folder.iterdir())):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        said = f"its process was lost before it had begun: typed again with {again} it runs"
        RunFolder(folder).error_file.write_text(said + "\n")
