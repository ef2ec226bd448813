"""Whether this installation, on this machine, keeps what the project promises."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from energy_at.doctor.findings import (
    Check,
    Checks,
    Finding,
    Verdict,
    as_json,
    examined,
    row,
    summary,
)

__all__ = [
    "Check",
    "Checks",
    "Finding",
    "Verdict",
    "as_json",
    "checks",
    "examined",
    "row",
    "summary",
]


def checks(datasets: Sequence[Path], root: Path) -> Checks:
    """Every check by its name.

    Args:
        datasets: Configuration files of the data sets to look for.
        root: Folder of the data.
    """
    subjects: dict[str, Callable[[], Checks]] = {
        "installation": _installation,
        "mathematics": _mathematics,
        "training": _training,
        "data": partial(_data, datasets, root),
        "loggers": _loggers,
    }
    found: Checks = {}
    for subject, load in subjects.items():
        try:
            found |= load()
        except Exception as error:  # a broken package takes the checks that need it, no others
            found[subject] = partial(_raise, error)
    return found


# Each subject is imported when its turn comes: what is broken may be an import.


def _installation() -> Checks:
    from energy_at.doctor import installation

    return installation.checks()


def _mathematics() -> Checks:
    from energy_at.doctor import energies as mathematics

    return mathematics.checks()


def _training() -> Checks:
    from energy_at.doctor import training

    return training.checks()


def _data(datasets: Sequence[Path], root: Path) -> Checks:
    from energy_at.doctor import data

    return data.checks(datasets, root)


def _loggers() -> Checks:
    from energy_at.doctor import loggers

    return loggers.checks()


def _raise(error: Exception) -> NoReturn:
    raise error
