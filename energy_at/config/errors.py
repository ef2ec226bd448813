"""A user's mistake ends in one line and exit code 1; a defect keeps its traceback."""

import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException, ValidationError

from energy_at.config.keys import unknown_choice, unknown_key
from energy_at.config.schema import rule_of
from energy_at.core.files import is_first, remove_empty
from energy_at.core.rules import ArgumentError

_EXTRAS = ("joblib", "ray", "submitit", "optuna")  # packages that run sweeps
_NOT_ASKED = "ENERGY_AT_ONE_LINE_ERRORS"
_MISTAKES = (ValueError, FileNotFoundError, FloatingPointError, ImportError, RuntimeError)
_FRAMEWORK = (HydraException, OmegaConfBaseException)


@contextmanager
def raising() -> Iterator[None]:
    """Has Hydra raise its errors instead of printing pages of them."""
    asked = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if asked != "1":
        os.environ[_NOT_ASKED] = "1"  # processes that we start would take it for the user's wish
    try:
        yield
    finally:
        os.environ.pop(_NOT_ASKED, None)
        if asked is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = asked


@contextmanager
def one_line_errors(
    folder: Path | None = None,
    *,
    keep_going: bool = False,
    on_interrupt: str = "",
    command: str | None = None,
) -> Iterator[None]:
    """Turns a user's mistake into one line and exit code 1; a defect of ours keeps its traceback.

    An empty run folder that Hydra has made is removed again.
    ``HYDRA_FULL_ERROR=1`` shows every traceback. A Ctrl-C ends in one line too, with exit code 130,
    and a reader that has closed (``| head``) in silence, with 141, as a shell expects.

    Args:
        folder: Of the run.
        keep_going: Leave the error in the folder instead of raising it: a job of a sweep must not
            end the others.
        on_interrupt: What a user who has pressed Ctrl-C should know.
        command: Whose keys may be misspelt.
    """
    if folder is not None:
        error_file(folder).unlink(missing_ok=True)  # of an earlier attempt
    try:
        with _readers_may_close():
            yield
    except Exception as error:
        line = explain(error, command)
        if folder is not None and keep_going:
            _write_error(folder, error, line)
            return
        if folder is not None:
            remove_empty(folder)
        if line is None or _wants_traceback():
            raise
        if not _reported_by_parent():
            sys.stderr.write(f"error: {line}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        if folder is not None:
            remove_empty(folder)
        if is_first():
            sys.stderr.write(f"\nstopped{on_interrupt and ': '}{on_interrupt}\n")
        sys.exit(128 + signal.SIGINT)


def _reported_by_parent() -> bool:
    """Whether the process that started this one has met the same mistake, and ended with it."""
    parent = os.getppid()
    for _ in range(0 if is_first() else 50):
        time.sleep(0.1)
        if os.getppid() != parent:
            return True
    return False


@contextmanager
def _readers_may_close() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def _write_error(folder: Path, error: Exception, line: str | None) -> None:
    if line is None or _wants_traceback():
        traceback.print_exception(error)
    line = line or " ".join(f"{type(error).__name__}: {error}".split())
    sys.stderr.write(f"error: {line}\n")
    folder.mkdir(parents=True, exist_ok=True)
    error_file(folder).write_text(line + "\n")


def error_file(folder: Path) -> Path:
    from energy_at.runs.folder import RunFolder  # here: --help does not need what reads runs

    return RunFolder(folder).error_file


def _wants_traceback() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1" and _NOT_ASKED not in os.environ


def explain(error: BaseException, command: str | None = None) -> str | None:
    """One line for a mistake that we foresaw, wherever a framework has wrapped it."""
    chain = list(_chain(error))
    for found in chain:
        if (line := _of_a_choice(found, command)) is not None:
            return line
    ours = [
        one
        for one in reversed(chain)
        if isinstance(one, _MISTAKES) and _raised_in(one, "energy_at")
    ]
    for found in sorted(ours, key=lambda one: isinstance(one, ArgumentError)):
        if isinstance(found, ArgumentError):  # of a key of the command, which is called the same
            return f"{found.argument}={found.value} must be {found.must}"
        return " ".join(str(found).split())
    for found in chain:
        if isinstance(found, OSError) and found.filename is not None:
            return f"{found.filename}: {found.strerror}"
    for found in chain:
        if _is_a_frameworks(found):
            return _without_bad_advice(" ".join(str(found).split()))
    return None


def _of_a_choice(error: BaseException, command: str | None) -> str | None:
    """A line for a key or a choice that is not there, or was not made."""
    missing = re.match("Could not override '(.+?)'", str(error))
    if missing and command and isinstance(error, ConfigCompositionException):
        return unknown_key(missing[1], command, [a for a in sys.argv[1:] if "=" in a])
    if (extra := _missing_extra(error)) is not None:
        return f"this launcher or sweeper is not installed: pip install 'energy_at[{extra}]'"
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        return unknown_choice(group, choice, error.options)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}= is missing: type it; --help shows how"
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if isinstance(error, ValidationError) and (must := rule_of(str(error.full_key))):
        return f"{error.full_key}={error.value} must be {must}"
    return None


def _unreadable(error: OverrideParseException) -> str:
    """Hydra says what is wrong with a function; of anything else, what its parser expected."""
    _, evaluated, said = " ".join(error.message.split()).partition(" while evaluating ")
    if evaluated:
        return f"{error.override}: {said.partition(': ')[2].partition(' See https:')[0]}"
    return (
        f"{error.override} cannot be read: write key=value, key=a,b for a sweep or key=[a,b] for a "
        "list, and put quotes around a value with other signs: 'key=\"a, (b)\"'"
    )


def _is_a_frameworks(error: BaseException) -> bool:
    # Lightning's by name: a broken Lightning must not keep the doctor from speaking.
    if type(error).__name__ == "MisconfigurationException" or isinstance(error, _FRAMEWORK):
        return True
    return any(_raised_in(error, package) for package in ("hydra", *_EXTRAS))


def _missing_extra(error: BaseException) -> str | None:
    """Name of the extra that brings the plugin which Hydra has looked for in vain."""
    if isinstance(error, MissingConfigException):
        sought = str(error.missing_cfg_file)
        sought = sought if sought.startswith("hydra/") else ""
    else:
        sought = str(error) if str(error).startswith("Unknown plugin class") else ""
    return next((extra for extra in _EXTRAS if extra in sought), None)


def _without_bad_advice(line: str) -> str:
    """The message without the advice to append the key with +, where it would not be read."""
    line = line.partition(" full_key: ")[0]  # OmegaConf repeats the key, for programmers
    if line.startswith("Config group override must be a string"):
        return "a group takes the name of one of its choices, such as reg=none: --help lists them"
    if there := re.search("An item is already at '(.+?)'", line):
        return f"+{there[1]}: the key is there already, leave out the +"
    return line.partition(" To append to your config use +")[0]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _raised_in(error: BaseException, package: str) -> bool:
    """Whether a module of this package raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    module = str(trace.tb_frame.f_globals.get("__name__", ""))
    path = Path(trace.tb_frame.f_code.co_filename)
    return module.split(".")[0] == package or package == path.parent.name
