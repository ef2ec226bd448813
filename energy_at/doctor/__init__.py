"""Checks of this installation: verdicts, and how a check is run."""

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Literal, NoReturn

from omegaconf import DictConfig

from energy_at.core.extras import of_torchvision

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Verdict:
    """The result of a check, and what to do about it."""

    status: Status  # warn where everything works, but not as one might expect
    message: str
    remedy: str = ""  # empty exactly where the check passes

    def __post_init__(self) -> None:
        if (self.status == "pass") != (not self.remedy):
            raise ValueError(f"warn and fail need a remedy, pass has none: {self}")


Checks = dict[str, Callable[[], Verdict]]  # by name


@dataclass(frozen=True, kw_only=True)
class Finding(Verdict):
    """The verdict of a named check, and the seconds that it took."""

    name: str
    seconds: float


def require(claims: Mapping[str, bool], message: str, remedy: str) -> Verdict:
    """Pass if every claim holds, else fail naming those that do not.

    Without a claim it raises ``ValueError``: a check that has measured nothing must not pass.
    """
    if not claims:
        raise ValueError("this check has measured nothing")
    broken = [claim for claim, holds in claims.items() if not holds]
    if broken:
        return Verdict("fail", f"not true: {'; '.join(broken)}", remedy)
    return Verdict("pass", message)


def collect_checks(datasets: Sequence[str | DictConfig], root: Path) -> Checks:
    """Every check by its name; a module that cannot be imported fails as one check."""
    checks: Checks = {}
    for subject in ("installation", "smoke"):
        try:
            checks |= import_module(f"energy_at.doctor.{subject}").checks(datasets, root)
        except Exception as error:  # the other checks do not depend on it
            checks[subject] = partial(_raise, error)
    return checks


def _raise(error: Exception) -> NoReturn:
    raise error


def run_check(name: str, check: Callable[[], Verdict]) -> Finding:
    """Run a check; an exception is a failure."""
    start = time.perf_counter()
    try:
        verdict = check()
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(f"{type(error).__name__}: {error}".split())
        text += f" ({Path(last.filename).name}:{last.lineno})"
        verdict = Verdict("fail", text, _remedy(error))
    return Finding(**asdict(verdict), name=name, seconds=round(time.perf_counter() - start, 2))


def _remedy(error: Exception) -> str:
    if isinstance(error, PackageNotFoundError):
        return f"pip install {error.name}; in a checkout of the project: pip install -e ."
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install the package that brings the module {error.name}: see the line 'packages'"
    last = "see the lines above first; if they all pass, report this line as a bug"
    return of_torchvision(error) or last
