"""What a check says, and how it is shown."""

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
    """What a check has found, and what to do about it.

    Attributes:
        status: ``"warn"`` where everything works, but not as one might expect.
        said: What was measured.
        remedy: What the user can do; empty only where all is well.
    """

    status: Status
    said: str
    remedy: str = ""

    def __post_init__(self) -> None:
        """Refuses to leave a user alone with a fault."""
        if (self.status == "pass") != (not self.remedy):
            raise ValueError(f"a remedy belongs to warn and fail, and to no pass: {self}")


Check = Callable[[], Verdict]
Checks = dict[str, Check]


@dataclass(frozen=True)
class Finding:
    """The verdict of one check.

    Attributes:
        name: Of the check.
        status: As in ``Verdict``.
        said: As in ``Verdict``.
        remedy: As in ``Verdict``.
        seconds: That the check took.
    """

    name: str
    status: Status
    said: str
    remedy: str
    seconds: float


def passed(said: str) -> Verdict:
    """All is well."""
    return Verdict("pass", said)


def judged(claims: Mapping[str, bool], said: str, remedy: str) -> Verdict:
    """Passes where every claim holds; names those that do not.

    Raises:
        ValueError: if there is no claim: what has measured nothing must not pass.
    """
    if not claims:
        raise ValueError("this check has measured nothing")
    broken = [claim for claim, holds in claims.items() if not holds]
    return Verdict("fail", f"not so: {'; '.join(broken)}", remedy) if broken else passed(said)


def examined(name: str, check: Check) -> Finding:
    """Runs one check; what it raises is a finding too."""
    start = time.perf_counter()
    try:
        verdict = check()
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        verdict = Verdict("fail", f"{said} ({_place(error)})", _cure(error))
    return Finding(name, **asdict(verdict), seconds=round(time.perf_counter() - start, 2))


def row(finding: Finding, width: int) -> str:
    """A row of the table, and the remedy below it; names are ``width`` wide."""
    said = f"{finding.status:4}  {finding.name:{width}}  {finding.said}"
    return f"{said}\n{'':4}  {'':{width}}  remedy: {finding.remedy}" if finding.remedy else said


def summary(findings: Sequence[Finding], seconds: float) -> str:
    """Such as ``14 pass, 2 warn, 0 fail in 8.3 s``."""
    counts = ", ".join(f"{number} {status}" for status, number in _counts(findings).items())
    return f"{counts} in {seconds:.1f} s"


def as_json(findings: Sequence[Finding], seconds: float) -> str:
    """The same for programs."""
    content: dict[str, Any] = _counts(findings) | {"seconds": round(seconds, 2)}
    return json.dumps(content | {"checks": [asdict(finding) for finding in findings]}, indent=2)


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    return {status: sum(f.status == status for f in findings) for status in get_args(Status)}


def _place(error: Exception) -> str:
    """Where it was raised, such as ``readers.py:53``."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def _cure(error: Exception) -> str:
    if isinstance(error, PackageNotFoundError):
        return f"pip install {error.name}; in a checkout of the project: pip install -e ."
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install the package that brings the module {error.name}: see the line 'packages'"
    return "see the lines above first; if they all pass, report this line as a bug"
