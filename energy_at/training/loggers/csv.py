"""Per-step metrics as one CSV file."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from energy_at.core.files import write_atomic

Cell = str | float | int


class MetricsCSV(Logger):
    """One row for each call, columns added as metrics appear; rows of a resumed run go on.

    Lightning's own CSV logger deletes the file of the run that it continues.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._columns = self._read_columns()
        self._pending: list[dict[str, Cell]] = []
        self._rows = self._count_rows()

    @property
    def name(self) -> str:
        """Kind of logger."""
        return "csv"

    @property
    def version(self) -> None:
        """A run folder holds one file."""

    @property
    def save_dir(self) -> str:
        """Folder of the file."""
        return str(self.path.parent)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run folder holds the configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds a row; it reaches the file with ``save``."""
        row: dict[str, Cell] = {k: _cell(k, value) for k, value in metrics.items() if k != "step"}
        self._pending.append({"step": -1 if step is None else round(step)} | row)

    @rank_zero_only
    def save(self) -> None:
        """Appends the rows that are not in the file yet."""
        rows, self._pending = self._pending, []
        new = [k for k in dict.fromkeys(k for row in rows for k in row) if k not in self._columns]
        if new:
            self._add_columns(new)
        if rows:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns, lineterminator="\n").writerows(rows)
            self._rows += len(rows)

    def finalize(self, status: str) -> None:
        """Leaves nothing behind in memory."""
        self.save()

    def count(self) -> int:
        """Rows in the file."""
        self.save()
        return self._rows

    def truncate(self, rows: int) -> None:
        """Drops all rows after the first ``rows``: a run resumed there will write them again."""
        if self.count() > rows:
            with self.path.open(newline="") as file:
                kept = [line for _, line in zip(range(rows + 1), file, strict=False)]
            write_atomic(self.path, "".join(kept))
            self._rows = rows

    def _add_columns(self, new: list[str]) -> None:
        old = self._columns
        self._columns = old + new
        lines = [",".join(self._columns)]
        if old:
            with self.path.open(newline="") as file:
                lines += [line.rstrip("\r\n") + "," * len(new) for line in list(file)[1:]]
        write_atomic(self.path, "\n".join(lines) + "\n")

    def _count_rows(self) -> int:
        if not self.path.exists():
            return 0
        with self.path.open(newline="") as file:
            return max(0, sum(1 for _ in file) - 1)

    def _read_columns(self) -> list[str]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return next(csv.reader(file), [])


def csv_logger(folder: str | Path) -> MetricsCSV:
    """``metrics.csv`` in the run folder."""
    return MetricsCSV(Path(folder) / "metrics.csv")


def _cell(name: str, value: float) -> Cell:
    return int(value) if name == "epoch" else float(f"{float(value):.7g}")
