"""Per-step metrics as one CSV file."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from energy_at.core.files import write_atomic

Cell = str | float | int


class MetricsCSV(Logger):
    """One row for each call; columns are added as metrics appear; a resumed run appends its rows.

    Lightning's own CSV logger deletes the file of the run that it resumes.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self._columns = lines[0].split(",") if lines else []
        self._rows = max(0, len(lines) - 1)
        self._pending: list[dict[str, Cell]] = []

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> None:
        """None: a run folder holds one file."""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the run folder holds the configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds a row, which ``save`` writes."""
        row: dict[str, Cell] = {k: _cell(k, value) for k, value in metrics.items() if k != "step"}
        self._pending.append({"step": -1 if step is None else round(step)} | row)

    @rank_zero_only
    def save(self) -> None:
        """Appends the rows that are not yet in the file."""
        rows, self._pending = self._pending, []
        new = [k for k in dict.fromkeys(k for row in rows for k in row) if k not in self._columns]
        if new:
            self._add_columns(new)
        if rows:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns, lineterminator="\n").writerows(rows)
            self._rows += len(rows)

    def finalize(self, status: str) -> None:
        self.save()

    def count(self) -> int:
        self.save()
        return self._rows

    def truncate(self, rows: int) -> None:
        """Drops all rows after the first ``rows``: a run resumed there writes them again."""
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


def csv_logger(folder: str | Path) -> MetricsCSV:
    return MetricsCSV(Path(folder) / "metrics.csv")


def _cell(name: str, value: float) -> Cell:
    return int(value) if name == "epoch" else float(f"{float(value):.7g}")
