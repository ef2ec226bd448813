"""One decorator for all commands."""

import functools
import inspect
import io
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from energy_at.config.arguments import options_first, require_overrides
from energy_at.config.errors import error_file, one_line_errors, raising
from energy_at.config.extras import require_installed
from energy_at.config.keys import OPEN, groups_help, require_read, require_single
from energy_at.config.schema import check
from energy_at.config.sweep_progress import SweepProgress
from energy_at.config.versions import BASE, OF_COMMANDS, allow, register_resolver, unchecked_help
from energy_at.core.files import CONF, is_first, remove_empty, write_error
from energy_at.core.interrupt import remember_interrupts, stop_if_interrupted
from energy_at.core.progress import printable, set_job, titled, write_line
from energy_at.core.trust import require_trusted, set_trusted

RERUN = "re-run the same command to resume"
_FLAGS = {"--dry-run": "dry_run=true"}  # options that stand for an override
_SWEEPING = "hydra.mode=MULTIRUN"


@dataclass(frozen=True)
class Job:
    """One run of a command.

    Attributes:
        folder: Where Hydra has it write; where it ran before, if its sweep is re-run.
        in_sweep: Whether it is a job of a sweep.
    """

    folder: Path
    in_sweep: bool = False


def command(
    name: str, *, jobs: bool = False, on_interrupt: str = ""
) -> Callable[[Callable[..., Any]], Callable[[], None]]:
    """Turns a function of the configuration into the command ``python -m energy_at.NAME``.

    The function gets a configuration that was checked. A text that it returns is printed, anything
    else is what a search optimizes. It imports what takes long itself, so that ``--help`` and
    wrong input are answered at once.

    Args:
        name: Of the command and of its YAML file.
        jobs: Whether the command may be the job of a sweep: the function takes a ``Job`` too. An
            error of a job is left in its folder, and the sweep continues.
        on_interrupt: What a user who has pressed Ctrl-C should know; ``{folder}`` and ``{out}``
            are filled in.
    """

    def decorate(body: Callable[..., Any]) -> Callable[[], None]:
        @hydra.main(config_path=CONF, config_name=name, **BASE, **allow(main=OF_COMMANDS))
        @functools.wraps(body)
        def task(cfg: DictConfig) -> Any:
            quieten()
            job = _this_job() if jobs else Job(Path.cwd())
            hint = on_interrupt.format(folder=job.folder, out=cfg.get("out"))
            folder = None if job.folder == Path.cwd() else job.folder
            place = Path(str(cfg.get("out") or cfg.get("run") or "."))
            with one_line_errors(folder, keep_going=job.in_sweep, on_interrupt=hint, place=place):
                require_single(overrides())
                require_read(cfg, name, overrides())
                check(cfg)
                if name != "doctor":  # which reports it
                    require_installed(cfg)
                OmegaConf.to_container(cfg, resolve=True)  # refuses what is no radius, in a second
                with open_dict(cfg):  # what is saved in a run folder never says whom to trust
                    set_trusted(cfg.pop("trust", []))
                require_trusted(cfg)
                _require_named(cfg)
                stop_if_interrupted()
                _announce(job)
                result = body(cfg, job) if jobs else body(cfg)
                if not isinstance(result, str):
                    return result
                print(printable(titled(result)))
            return None

        @functools.wraps(body)
        def main() -> None:
            remember_interrupts()
            _require_unicode()
            module = cast(FunctionType, inspect.unwrap(body)).__globals__
            about = inspect.cleandoc(module["__doc__"] or "")
            register_resolver("command_help", lambda: about)
            register_resolver("groups_help", groups_help)
            _open_output()
            quieten()
            with raising(), unchecked_help(), one_line_errors(command=name):
                sys.argv[1:] = _hydra_arguments(name, sys.argv[1:], jobs=jobs)
                require_overrides(name, sys.argv[1:])
                task()

        return main

    return decorate


def overrides() -> list[str]:
    """What was typed behind the command."""
    return list(HydraConfig.get().overrides.task)


def output_file(cfg: DictConfig) -> Path | None:
    """The file that ``out=FILE`` names, if any; it can be written."""
    if cfg.out is None:
        return None
    path = Path(str(cfg.out))
    if path.is_dir():
        raise ValueError(f"out={path} is a folder: name a file in it")
    if why := write_error(path.parent):
        raise ValueError(f"out={path} cannot be written ({why}): choose another file")
    return path


def _hydra_arguments(name: str, typed: Sequence[str], *, jobs: bool) -> list[str]:
    """What was typed behind a command, as Hydra takes it."""
    arguments = [_FLAGS.get(argument, argument) for argument in typed]
    own = OPEN.get(name)
    arguments = [f"+{a}" if own and a.startswith(own) else a for a in arguments]
    if jobs and _names_sweep(arguments):
        arguments.append(_SWEEPING)
    return options_first(arguments)


def _names_sweep(arguments: Sequence[str]) -> bool:
    """Whether ``sweep=`` stands for ``-m``. Hydra >= 1.4 reads no mode from its file."""
    named = any(a.startswith("sweep=") and a != "sweep=none" for a in arguments)
    return named and not any(a.startswith("hydra.mode=") for a in arguments)


def _announce(job: Job) -> None:
    """Prints which job of a sweep begins here, and how long the sweep will take from now on."""
    found = SweepProgress.inherited() if job.in_sweep else None
    if found is None:
        set_job()
        return
    hydra_config = HydraConfig.get()
    number, launcher = hydra_config.job.num, hydra_config.runtime.choices["hydra/launcher"]
    title = found.title(int(number), hydra_config.overrides.task)
    set_job(alone=launcher == "basic")
    if is_first():
        write_line(f"{title}{found.left(Path(hydra_config.sweep.dir))}")
    set_job(title, alone=launcher == "basic")


def _require_named(cfg: DictConfig) -> None:
    """Checks what is to be opened, if anything: what reads runs is imported for nothing else."""
    if "checkpoint" in cfg or any(cfg.get(key) is not None for key in ("resume", "init")):
        from energy_at.runs.selection import require_named

        require_named(cfg, overrides())


def _this_job() -> Job:
    job = HydraConfig.get()
    output, in_sweep = Path(job.runtime.output_dir), job.mode == RunMode.MULTIRUN
    if not in_sweep:
        return Job(output)
    if any("joblib.externals.loky" in word for word in sys.orig_argv):
        found = SweepProgress.inherited()
        _end_with_parent(found.process if found is not None else os.getppid())
    from energy_at.runs.resume import job_folder

    folder = job_folder(output, Path(job.sweep.dir), job.overrides.task).path
    if folder != output:
        error_file(output).unlink(missing_ok=True)
        remove_empty(output)
    return Job(folder, in_sweep)


@functools.cache
def _end_with_parent(parent: int) -> None:
    """Ends this process, a worker of a sweep, when the process that started it is gone.

    Joblib's workers would train on for half a minute, and a sweep that is re-run at once would meet
    them in its folders. It may be gone already, while its worker was still importing.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)  # joblib's handlers would wait for the parent

    threading.Thread(target=watch, daemon=True).start()


def _require_unicode() -> None:
    """Starts the process again in UTF-8 mode where a locale knows ASCII only.

    Hydra could not read names with other letters, and their files could not be opened.
    """
    if sys.getfilesystemencoding() == "ascii" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)


def _open_output() -> None:
    """Has closed output (``>&-``) go nowhere, and terminals show ? for letters that they lack."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def quieten() -> None:
    """Keeps Lightning's hints out of the output; a process that was handed a job needs it too.

    Lightning's import undoes it: who imports it later calls this again.
    """
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    # The folder of a run that is resumed is never empty, and may have been moved.
    warnings.filterwarnings("ignore", message="The dirpath has changed from")
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    # A checkpoint may hold the state of a callback that the run does not have.
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`, callbacks")
    # hydra/launcher/submitit_*.yaml stand before those of the plugin, for better defaults.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/\w+/\w+' is validated against Config")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it repeats errors that it raises
