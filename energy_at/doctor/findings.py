"""Verdicts of checks, and how they are printed."""

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, Literal, get_args

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Verdict:
    """The result of a check, and what to do about it.

    Attributes:
        status: ``"warn"`` where everything works, but not as one might expect.
        message: What was found.
        remedy: What the user can do; empty exactly where the check passes.
    """

    status: Status
    message: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if (self.status == "pass") != (not self.remedy):
            raise ValueError(f"warn and fail need a remedy, pass has none: {self}")


Check = Callable[[], Verdict]
Checks = dict[str, Check]


@dataclass(frozen=True)
class Finding:
    """The verdict of a named check, and the seconds that it took."""

    name: str
    status: Status
    message: str
    remedy: str
    seconds: float


def require(claims: Mapping[str, bool], message: str, remedy: str) -> Verdict:
    """Pass if every claim holds, else fail naming those that do not.

    Raises:
        ValueError: without a claim: a check that has measured nothing must not pass.
    """
    if not claims:
        raise ValueError("this check has measured nothing")
    broken = [claim for claim, holds in claims.items() if not holds]
    if broken:
        return Verdict("fail", f"not true: {'; '.join(broken)}", remedy)
    return Verdict("pass", message)


def run_check(name: str, check: Check) -> Finding:
    """Run a check; an exception is a failure."""
    start = time.perf_counter()
    try:
        verdict = check()
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(f"{type(error).__name__}: {error}".split())
        text += f" ({Path(last.filename).name}:{last.lineno})"
        verdict = Verdict("fail", text, _remedy(error))
    return Finding(name, **asdict(verdict), seconds=round(time.perf_counter() - start, 2))


def row(finding: Finding, width: int) -> str:
    """A row of the table, and the remedy below it; names are ``width`` wide."""
    line = f"{finding.status:4}  {finding.name:{width}}  {finding.message}"
    return f"{line}\n{'':4}  {'':{width}}  remedy: {finding.remedy}" if finding.remedy else line


def summary(findings: Sequence[Finding], seconds: float) -> str:
    """Such as ``14 pass, 2 warn, 0 fail in 8.3 s``."""
    counts = ", ".join(f"{number} {status}" for status, number in _counts(findings).items())
    return f"{counts} in {seconds:.1f} s"


def as_json(findings: Sequence[Finding], seconds: float) -> str:
    content: dict[str, Any] = _counts(findings) | {"seconds": round(seconds, 2)}
    checks = [{"said" if k == "message" else k: v for k, v in asdict(f).items()} for f in findings]
    return json.dumps(content | {"checks": checks}, indent=2)


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    return {status: sum(f.status == status for f in findings) for status in get_args(Status)}


def _remedy(error: Exception) -> str:
    if isinstance(error, PackageNotFoundError):
        return f"pip install {error.name}; in a checkout of the project: pip install -e ."
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install the package that brings the module {error.name}: see the line 'packages'"
    return "see the lines above first; if they all pass, report this line as a bug"
