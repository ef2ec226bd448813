"""A user's error ends in one line and exit code 1; a defect keeps its traceback."""

import errno
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra._internal import utils
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf.errors import (
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)
from yaml import MarkedYAMLError

from energy_at.config.keys import choices_of, unknown_key
from energy_at.config.schema import GROUP, RULES
from energy_at.core.extras import install, of_torchvision
from energy_at.core.files import is_first, remove_empty, write_atomic
from energy_at.core.interrupt import end_stopped, was_interrupted
from energy_at.core.lock import InUseError
from energy_at.core.progress import printable
from energy_at.core.rules import ArgumentError, as_typed, one_of
from energy_at.core.trust import below_trusted

_EXTRAS = "joblib|ray|submitit|optuna"  # packages that run sweeps
_OUTPUT = "standard output"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_MODE = r"\[RUN, MULTIRUN\]"
_HYDRA_TYPES = {  # of its own keys, in messages of OmegaConf
    "is not Optional|to string": "a text",
    "valid bool": "true or false",
    "to Integer": "an integer",
    _MODE: "RUN or MULTIRUN",
}
_USER_ERRORS = (ValueError, FileNotFoundError, FloatingPointError, ImportError, RuntimeError)
_FRAMEWORK = (HydraException, OmegaConfBaseException)


@contextmanager
def raising() -> Iterator[None]:
    """Has Hydra raise its errors, as under a debugger, instead of printing pages of them."""
    before, utils.is_under_debugger = utils.is_under_debugger, lambda: True
    try:
        yield
    finally:
        utils.is_under_debugger = before


@contextmanager
def one_line_errors(
    folder: Path | None = None,
    *,
    keep_going: bool = False,
    on_interrupt: str = "",
    command: str | None = None,
    place: Path | None = None,
) -> Iterator[None]:
    """Turns a user's error into one line and exit code 1; a defect of ours keeps its traceback.

    An empty run folder that Hydra has made is removed again; with ``keep_going`` the error is left
    in it instead of raised: a job of a sweep must not end the others. ``HYDRA_FULL_ERROR=1`` shows
    every traceback. A Ctrl-C ends in one line too, with exit code 130, and a reader that has closed
    (``| head``) in silence, with 141, as a shell expects. A full disk is that of the folder, or
    else of the ``place`` that the command writes in.
    """
    if folder is not None:
        with suppress(OSError):  # of a folder, which is refused later
            error_file(folder).unlink(missing_ok=True)  # of an earlier attempt
    try:
        yield
        with _naming(_OUTPUT):
            sys.stdout.flush()
    except BrokenPipeError:
        _close_output()
        sys.exit(128 + signal.SIGPIPE)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) or was_interrupted():
            end_stopped(error, folder, on_interrupt)
        _end(error, command, folder, place, keep_going=keep_going)


def _end(
    error: Exception,
    command: str | None,
    folder: Path | None,
    place: Path | None,
    *,
    keep_going: bool,
) -> None:
    """Ends the command with one line, or the job of a sweep; raises a defect of ours again."""
    if isinstance(error, OSError) and _is_of_output(error):
        _close_output()
        error = OSError(error.errno, error.strerror, _OUTPUT)
    line = explain(error, command, folder or place)
    if folder is not None and keep_going:
        _keep_error(folder, error, line)
        return
    if folder is not None:
        remove_empty(folder)
    if line is None or _wants_traceback():
        raise error
    _print_once(line)
    sys.exit(1)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Gives an ``OSError`` a name, but for that of a reader that has closed."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error


def _is_of_output(error: OSError) -> bool:
    """Whether a full device is the one behind standard output; an empty line finds it out."""
    if error.filename is not None or error.errno not in _NO_SPACE:
        return str(error.filename) == _OUTPUT
    try:
        print(flush=True)
    except OSError:
        return True
    return False


def _close_output() -> None:
    """Python flushes once more at its end, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_once(line: str) -> None:
    """Prints an error, unless the process that started this one has met it too, and ended."""
    parent = os.getppid()
    for _ in range(0 if is_first() else 50):
        time.sleep(0.1)
        if os.getppid() != parent:
            return
    sys.stderr.write(f"error: {printable(line)}\n")


def _keep_error(folder: Path, error: Exception, line: str | None) -> None:
    if line is None or _wants_traceback():
        traceback.print_exception(error)
    line = line or " ".join(f"{type(error).__name__}: {error}".split())
    sys.stderr.write(f"error: {printable(line)}\n")
    if not isinstance(error, InUseError):  # the folder is that of a job that runs
        with suppress(OSError):  # of a full disk
            write_atomic(error_file(folder), line + "\n")


def _wants_traceback() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def error_file(folder: Path) -> Path:
    from energy_at.runs.folder import RunFolder  # here: --help does not need what reads runs

    return RunFolder(folder).error_file


def explain(
    error: BaseException, command: str | None = None, folder: Path | None = None
) -> str | None:
    """One line for an error that we foresaw, wherever a framework has wrapped it.

    An error of a write that names no file, such as of a full disk, is one of the ``folder``.
    """
    chain = list(_chain(error))
    for found in chain:
        if (line := _of_a_choice(found, command)) is not None:
            return line
    ours = [e for e in chain if isinstance(e, _USER_ERRORS) and _raised_in(e, "energy_at")]
    ours = [e for e in reversed(ours) if getattr(e, "errno", None) is None]  # raised first
    for found in sorted(ours, key=lambda e: isinstance(e, ArgumentError)):
        if isinstance(found, ArgumentError):  # of a key of the command, which is called the same
            return f"{found.argument}={as_typed(found.value)} must be {found.must}"
        # another of ours with a key in front, and none of a framework that quotes it
        own = (e for e in ours if not isinstance(e, _FRAMEWORK))
        quoting = (str(e) for e in own if str(found) in str(e))
        return " ".join(max(quoting, key=len).split())
    for found in chain:
        if isinstance(found, OSError) and found.filename is not None:
            return f"{found.filename}: {found.strerror}"
    explained = (of(found) for of in (of_torchvision, _of_memory_format) for found in chain)
    if line := next(filter(None, (*explained, *map(_of_trusted_code, chain))), None):
        return line
    if line := next(filter(None, [*map(_of_a_file, chain), *map(_of_a_framework, chain)]), None):
        return line
    full = [found for found in chain if isinstance(found, OSError) and found.errno in _NO_SPACE]
    return f"{folder or 'a file'}: {full[0].strerror}" if full else None


def _of_memory_format(error: BaseException) -> str | None:
    if isinstance(error, RuntimeError) and "view size is not compatible" in str(error):
        return (
            "a network calls .view, which needs images that are stored channel by channel: set "
            "training.channels_last=false, or have it call .reshape"
        )
    return None


def _of_trusted_code(error: BaseException) -> str | None:
    """The place in a user's own term, network or attack that failed, or called what fails."""
    frames = traceback.walk_tb(error.__traceback__)
    named = [
        (str(f.f_globals.get("__name__", "")), f"{f.f_code.co_filename}:{n}") for f, n in frames
    ]
    own = [place for module, place in named if below_trusted(module)]
    if not own:
        return None
    message = " ".join(str(error).split())
    full = "HYDRA_FULL_ERROR=1 shows the whole traceback"
    return f"{own[-1]}: {type(error).__name__}: {message} ({full})"


def _of_a_choice(error: BaseException, command: str | None) -> str | None:
    """A line for a key or a choice that is not there, or was not made."""
    if (line := _of_an_override(error, command)) is not None:
        return line
    sought = str(getattr(error, "missing_cfg_file", error))
    if extra := re.match(rf"(?:hydra/\w+/|Unknown plugin class.*?)({_EXTRAS})", sought):
        return f"this launcher or sweeper is not installed: {install(extra[1])}"
    if "rimary config" in str(error) and isinstance(error, MissingConfigException | HydraException):
        return (
            "--config-name and --config-path find no configuration there, and the command has its "
            "own: leave them out, and write key=value, such as experiment=fast_at_der"
        )
    if isinstance(error, MissingConfigException) and (line := _of_an_unknown_choice(error)):
        return line
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}= is missing: type it; --help shows how"
    if unset := re.search(r"Missing mandatory value: ([\w.]+)", str(error)):  # that another needs
        return f"{unset[1]}= is missing: type it; --help shows how"
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if several := re.match("Ambiguous value for argument '((.+?)=(.+?))'", str(error)):
        sweep, key, values = several.groups()
        return f"{sweep}: add -m to run each of them, or write {key}=[{values}] for a list"
    if isinstance(error, ValidationError) and error.full_key in RULES:
        return f"{error.full_key}={as_typed(error.value)} must be {RULES[error.full_key].must}"
    return None


def _of_an_unknown_choice(error: MissingConfigException) -> str | None:
    sought = str(error.missing_cfg_file)
    is_hydras = sought.startswith("hydra/")  # whose groups have two names: hydra/launcher
    group, _, choice = sought.rpartition("/") if is_hydras else sought.partition("/")
    # Hydra knows those of the user too, but none in a folder, and none of a choice in a list
    known = {*(error.options or ()), *choices_of(group)} if choice else None
    return f"{group}={choice} must be {one_of(*sorted(known)).broken_by(choice)}" if known else None


def _of_an_override(error: BaseException, command: str | None) -> str | None:
    """A line for a key that is not there, or that got a value of another type."""
    missing = re.match("Could not override '(.+?)'", str(error))
    if missing and command and isinstance(error, ConfigCompositionException):
        # key={a: 1} of a group that has no key.a
        inner = re.search(rf"full_key: ({re.escape(missing[1])}\.\S+)", str(error.__cause__))
        key = inner[1] if inner else missing[1]
        return unknown_key(key, command, [a for a in sys.argv[1:] if "=" in a])
    if mode := re.match(r"Invalid hydra.mode '(.*?)'", str(error)):  # of Hydra >= 1.4
        return f"hydra.mode={mode[1]} must be {_HYDRA_TYPES[_MODE]}"
    if typed := re.match(r"Error merging override \+*([\w.]+)=(.*)", str(error)):
        why = str(error.__cause__)
        found = (must for pattern, must in _HYDRA_TYPES.items() if re.search(pattern, why))
        must = RULES[typed[1]].must if typed[1] in RULES else next(found, GROUP.must)
        return f"{typed[1]}={typed[2]} must be {must}"
    return None


def _unreadable(error: OverrideParseException) -> str:
    """Hydra says what is wrong with a function; of anything else, what its parser expected."""
    _, evaluated, message = " ".join(error.message.split()).partition(" while evaluating ")
    if evaluated:
        return f"{error.override}: {message.partition(': ')[2].partition(' See https:')[0]}"
    return (
        f"{error.override} cannot be read: write key=value, key=a,b for a sweep or key=[a,b] for a "
        "list, and put quotes around a value with other signs: 'key=\"a, (b)\"'"
    )


def _of_a_file(error: BaseException) -> str | None:
    """The place of an error in a YAML file or a module of the user, which cannot be read."""
    if isinstance(error, MarkedYAMLError) and (mark := error.problem_mark) is not None:
        place = f"line {mark.line + 1}, column {mark.column + 1}"
        return f"{mark.name} is not YAML: {place}: {error.problem}"
    if lost := re.match("Error locating target '(.+?)'", str(error)):
        why = " ".join(str(list(_chain(error))[-1]).split())
        return f"{lost[1]} cannot be imported: {why}"
    return None


def _of_a_framework(error: BaseException) -> str | None:
    # Lightning's by name: a broken Lightning must not keep the doctor from speaking.
    known = type(error).__name__ == "MisconfigurationException" or isinstance(error, _FRAMEWORK)
    if not known and not _raised_in(error, f"hydra|{_EXTRAS}"):
        return None
    line, _, place = " ".join(str(error).split()).partition(" full_key: ")
    if isinstance(error, InterpolationResolutionError):
        place = error.full_key or next((a for a in sys.argv[1:] if "${" in a), "a value")
        return f"{place} cannot be computed: {line}"
    if line.startswith("Config group override must be a string"):
        return "a group takes the name of one of its choices, such as reg=none: --help lists them"
    if lost := re.match("Key '(.+?)' is not in struct", line):
        typed = [a for a in sys.argv[1:] if a.startswith("~")]
        if deleted := [a for a in typed if lost[1] in a.lstrip("~").partition("=")[0].split(".")]:
            return f"{deleted[0]}: the command reads this key, which cannot be deleted: set it"
    if several := re.match("Multiple values for (.+?)\\. To override", line):
        return f"+{several[1]}: the group has a choice already, leave out the +"
    if extra := re.search(r"target '(.+?)': TypeError.* unexpected keyword argument '(.+?)'", line):
        return f"{place}.{extra[2]}: {extra[1]} takes no argument {extra[2]}: leave it out"
    if there := re.search("An item is already at '(.+?)'", line):
        return f"+{there[1]}: the key is there already, leave out the +"
    return f"{place}: {line}" if isinstance(error, InstantiationException) and place else line


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _raised_in(error: BaseException, packages: str) -> bool:
    """Whether a module of one of the packages, or of a plugin called the same, raised it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not frames:
        return False
    module, file = str(frames[-1].f_globals.get("__name__", "")), frames[-1].f_code.co_filename
    return bool({module.split(".")[0], Path(file).parent.name} & set(packages.split("|")))
