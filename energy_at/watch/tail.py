"""A growing ``metrics.csv``, each byte of it read once."""

import csv
import math
import os
from contextlib import suppress
from pathlib import Path

Row = dict[str, float]

AT_ONCE = 4 << 20  # bytes of one look: a log of a million rows is shown while it is read


class Tail:
    """The rows that a file has won since the last look.

    The file may not be there yet. Its writer replaces it when a column is added, and when a resumed
    run cuts it back: then it is read from its beginning again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.behind = False  # whether there is more to read at once
        self._columns: list[str] = []
        self._place = 0
        self._file = 0  # its inode

    def look(self, most: int = AT_ONCE) -> tuple[list[Row], bool]:
        """New rows, without empty cells or a line that is not whole yet; whether it began anew.

        Raises:
            ValueError: if it is no text, or a cell holds no number.
        """
        if not self.path.is_file():
            return [], self._begin_anew()
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            anew = status.st_ino != self._file or status.st_size < self._place
            if anew:
                self._begin_anew()
                self._file = status.st_ino
            file.seek(self._place)
            data = file.read(most)
        whole = data[: data.rfind(b"\n") + 1]
        self._place += len(whole)
        self.behind = bool(whole) and self._place < status.st_size and len(data) == most
        return self._rows(whole), anew

    def _begin_anew(self) -> bool:
        known = self._place > 0
        self._columns, self._place, self._file, self.behind = [], 0, 0, False
        return known

    def _rows(self, data: bytes) -> list[Row]:
        with suppress(ValueError):  # of which UnicodeDecodeError is one
            lines = data.decode().splitlines()
            if not self._columns and lines:
                self._columns = next(csv.reader(lines[:1]))
                lines = lines[1:]
            return [
                {k: float(v) for k, v in zip(self._columns, line.split(","), strict=False) if v}
                for line in lines
            ]
        raise ValueError(f"{self.path} is damaged: a cell holds no number")


class Trace:
    """A curve in at most ``MOST`` bins, however long it grows: each spans as many values."""

    MOST = 400

    def __init__(self) -> None:
        self.bins: list[list[float]] = []  # step, lowest, mean and highest value
        self.last = math.nan
        self._size = 1  # values of a bin
        self._open: list[tuple[float, float]] = []

    def add(self, step: float, value: float) -> None:
        """One more value; one that is not finite leaves a gap."""
        if not math.isfinite(value):
            return
        self.last = value
        self._open.append((step, value))
        if len(self._open) < self._size:
            return
        self.bins.append(_bin(self._open))
        self._open = []
        if len(self.bins) >= self.MOST:
            self.bins = [_joined(a, b) for a, b in zip(*[iter(self.bins)] * 2, strict=True)]
            self._size *= 2

    def points(self) -> list[list[float]]:
        """All bins, and what is in none yet."""
        return self.bins + ([_bin(self._open)] if self._open else [])


def _bin(values: list[tuple[float, float]]) -> list[float]:
    steps, found = zip(*values, strict=True)
    return [sum(steps) / len(steps), min(found), sum(found) / len(found), max(found)]


def _joined(a: list[float], b: list[float]) -> list[float]:
    return [(a[0] + b[0]) / 2, min(a[1], b[1]), (a[2] + b[2]) / 2, max(a[3], b[3])]
