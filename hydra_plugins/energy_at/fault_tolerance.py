"""A launcher whose lost jobs do not end the sweep."""

import errno
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

from energy_at.config.schema import check
from energy_at.config.sweep_progress import SweepProgress
from energy_at.core.lock import locked

WRITTEN_FIRST = ("environment.json", "config.yaml")  # by a job that starts or resumes
LOSSES = {  # what launchers raise when the process of a job is gone, by name: few are installed
    "BrokenExecutor",
    "UncompletedJobError",
    "WorkerCrashedError",
    "OutOfMemoryError",
    "NodeDiedError",
    "LocalRayletDiedError",
    "ObjectLostError",
}
FULL = (errno.ENOSPC, errno.EDQUOT)  # a disk: another attempt meets it too
ANSWERS = {"FailedJobError"}  # a process that lived to say what was wrong
LOCAL = ("basic", "joblib")  # launchers whose jobs find what is on this machine
Place = Callable[[Sequence[str], int], Path]


def launch_jobs(
    launcher: Launcher,
    config: DictConfig,
    jobs: Sequence[Sequence[str]],
    first: int,
    place: Place,
    progress: SweepProgress,
) -> Sequence[JobReturn]:
    """Launches jobs; those that are lost are launched once more.

    A job handles its own errors. An exception here means that a job was killed, such as by a node
    that ran out of memory, or that none could start or the disk is full, which is raised to the
    user. All jobs that have not finished are launched again and resume. In a pool, a killed process
    ends the running and the waiting jobs too: if that happens again, each runs alone.

    Args:
        launcher: What starts them.
        config: Of the sweep.
        jobs: Overrides of each.
        first: Number of the first.
        place: The folder of a job, from its overrides and its number.
        progress: Of the whole sweep, which jobs print.

    Returns:
        What each job returned; an empty list if jobs were lost twice.

    Raises:
        InUseError: if another sweep launches jobs in the same folder.
    """
    sweep = Path(str(config.hydra.sweep.dir))
    with locked(sweep / ".lock", sweep), progress.handed_down():
        return _launch_jobs(launcher, sweep, jobs, first, place)


def _launch_jobs(
    launcher: Launcher, sweep: Path, jobs: Sequence[Sequence[str]], first: int, place: Place
) -> Sequence[JobReturn]:
    before = _start_times(sweep)
    error = _try_launch(launcher, jobs, first)
    if not isinstance(error, Exception):
        return error
    is_full = getattr(error, "errno", None) in FULL
    if is_full or not (is_loss(error) or _start_times(sweep) != before):
        raise error
    _report_loss(error, "jobs that have not finished are resumed")
    _await_others(error)
    error = _try_launch(launcher, jobs, first)
    if not isinstance(error, Exception):
        return error
    found: Sequence[JobReturn] = []
    if isinstance(error, BrokenExecutor) and len(jobs) > 1 and _start_times(sweep) != before:
        _report_loss(error, "jobs that have not finished are resumed one by one")
        found = [_launch_alone(launcher, job, first + i) for i, job in enumerate(jobs)]
    else:
        _report_loss(error, "no further attempt")
        _await_others(error)
    _note_lost(sweep, [(place(job, first + i), job) for i, job in enumerate(jobs)])
    return found


def is_loss(error: BaseException) -> bool:
    """Whether the exception means that the process of a job is gone."""
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


def require_any(
    context: HydraContext, config: DictConfig, jobs: Sequence[Sequence[str]], place: Place
) -> None:
    """Raises the error of the first job if none could begin: all lack data, or a package.

    One that could, or has begun before, is enough: the others say what is wrong with them. After
    that, samplings must have all their feature extractors, which may be downloaded here. A key or a
    choice that Hydra does not know is an error of the whole sweep. What needs no torch comes first.
    """
    compose = context.config_loader.load_sweep_config
    typed: set[str] = set()
    for job in jobs:
        if not typed.issuperset(job):
            compose(config, list(job))
            typed.update(job)
    errors = []
    for number, job in enumerate(jobs):
        folder = place(job, number)
        if folder.is_dir() or config.hydra.runtime.choices["hydra/launcher"] not in LOCAL:
            break
        try:
            check(composed := compose(config, list(job)))
            from energy_at.config.preflight import require_beginning

            require_beginning(composed, folder)
        except Exception as error:
            errors.append(error)
        else:
            break
    else:
        raise errors[0]
    if config.hydra.job.name == "sample":
        from energy_at.sampling.plan import require_extractors

        require_extractors(config)


def _try_launch(
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


def _launch_alone(launcher: Launcher, job: Sequence[str], number: int) -> JobReturn:
    found = _try_launch(launcher, [job], number)
    if not isinstance(found, Exception):
        return found[0]
    _report_loss(found, f"job {number} is not tried again")
    return JobReturn(_return_value=None, status=JobStatus.COMPLETED)


def _await_others(error: Exception) -> None:
    """Waits for the jobs next to a lost one, which submitit reports while they still run.

    Launched again, they would write to the same files. Submitit exposes its jobs nowhere else.
    """
    trace = error.__traceback__
    while trace is not None:
        for job in trace.tb_frame.f_locals.get("jobs", ()):
            if hasattr(job, "wait"):
                job.wait()
        trace = trace.tb_next


def _start_times(sweep: Path) -> dict[Path, int]:
    """When each job was last started or resumed."""
    found = {}
    for name in WRITTEN_FIRST:
        for file in sweep.rglob(name):
            with suppress(FileNotFoundError):  # of a job that starts anew
                found[file] = file.stat().st_mtime_ns
    return found


def _report_loss(error: Exception, then: str) -> None:
    line = " ".join(str(error).split()).partition(". ")[0]
    text = f"{type(error).__name__}: {line[:300]}"
    sys.stderr.write(f"error: a job was lost: {text}; {then}\n")


def _note_lost(sweep: Path, jobs: Sequence[tuple[Path, Sequence[str]]]) -> None:
    """Writes an error file for each lost job that has written nothing yet."""
    from energy_at.runs.folder import RunFolder, runs_below

    again = f"hydra.sweep.dir={sweep}"
    known = [sorted(run.overrides()) for run in runs_below(sweep)]
    for folder, job in jobs:
        if sorted(job) in known or (folder.is_dir() and any(folder.iterdir())):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        text = f"its process was lost before it had begun: re-run the sweep with {again}"
        RunFolder(folder).error_file.write_text(text + "\n")
