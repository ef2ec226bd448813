"""Progress on stderr: bars on a terminal of its own, whole lines in a file or among other jobs."""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

_title, _alone = "", True
# Control characters but tab and newline; marks of the direction of text, which reorder a line.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def set_job(title: str = "", *, alone: bool = True) -> None:
    """Names the job of a sweep that this process runs from here on.

    Args:
        title: Its number and overrides, ``[3/6] seed=0``; empty outside a sweep.
        alone: Whether no other job writes to the same terminal.
    """
    global _title, _alone
    _title, _alone = title, alone


def is_alone() -> bool:
    """Whether no other job writes to the same terminal."""
    return _alone


def has_bars() -> bool:
    return _alone and sys.stderr.isatty()


def titled(text: str) -> str:
    """A result to print; that of a job of a sweep has its title above."""
    return f"{_title}\n{text}" if _title else text


def printable(text: str) -> str:
    """Text whose control characters are escaped: those of a stranger's file steer no terminal."""
    return _CONTROL.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def write_line(line: str) -> None:
    """Writes a line above the bars; with its title in front if other jobs write there too."""
    beside = "" if _alone or not _title else f"{_title}: "
    tqdm.write(
        f"{printable(beside + line)}\n", file=sys.stderr, end=""
    )  # at once: other jobs write too


def clock(seconds: float) -> str:
    """``3:05`` or ``1:02:09``."""
    text: str = tqdm.format_interval(max(0, round(seconds)))
    return text.removeprefix("0")


class Bar(tqdm):  # type: ignore[misc]
    """A bar on stderr that vanishes when it is finished; none without ``has_bars``."""

    def __init__(self, *arguments: Any, visible: bool = True, **options: Any) -> None:
        fixed = {"file": sys.stderr, "leave": False, "dynamic_ncols": True}
        super().__init__(*arguments, **fixed, disable=not (visible and has_bars()), **options)


@contextmanager
def one_line_retries() -> Iterator[None]:
    """Says once, not for each try, that the Hub's client repeats them for half a minute."""
    logger = logging.getLogger("huggingface_hub.utils._http")
    said = False

    def first(record: logging.LogRecord) -> bool:
        nonlocal said
        retries = record.getMessage().startswith("Retrying")
        passes, said = record.levelno >= logging.ERROR or (retries and not said), said or retries
        if retries:
            record.msg = "no answer from the Hugging Face Hub: trying again for half a minute"
            record.args = ()
        return passes

    logger.addFilter(first)
    try:
        yield
    finally:
        logger.removeFilter(first)
