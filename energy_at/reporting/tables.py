"""Tables, Markdown for people and CSV for machines, and the cells that several tables share."""

import csv
import io
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Table:
    """Rows of cells that are ready to print; in a table for CSV alone, of any values."""

    columns: tuple[Any, ...]
    rows: Sequence[tuple[Any, ...]]

    @staticmethod
    def of(rows: Sequence[Mapping[str, Any]]) -> "Table":
        return Table(tuple(rows[0]) if rows else (), [tuple(row.values()) for row in rows])

    def markdown(self) -> str:
        """A Markdown table with aligned columns; a ``|`` in a cell is escaped."""
        lines = [[cell.replace("|", r"\|") for cell in line] for line in (self.columns, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(1, ["-" * width for width in widths])
        return "\n".join(
            "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
            for line in lines
        )

    def csv(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return out.getvalue()


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Items of the same key, in the order of the first of each."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def mean_and_range(values: Iterable[float | None]) -> tuple[float, float, float] | None:
    """Mean, lowest and highest of the values that are known; ``None`` if none is."""
    known = [value for value in values if value is not None and value == value]
    return (sum(known) / len(known), min(known), max(known)) if known else None


def mean_cell(values: Iterable[float | None], form: str = ".1f") -> str:
    """``34.2`` of one value, ``34.2 [32.7, 35.6]`` of several that differ, else empty."""
    found = mean_and_range(values)
    if found is None:
        return ""
    mean, low, high = (f"{value:{form}}" for value in found)
    return mean if low == high else f"{mean} [{low}, {high}]"


def each_cell(values: Sequence[float | None], form: str = ".1f") -> str:
    """``0.4, 69.1``: values of runs that no mean may join."""
    cells = [mean_cell([value], form) for value in values]
    return ", ".join(cells) if any(cells) else ""


def steps_cell(steps: Iterable[tuple[str, int | None]]) -> str:
    """``CO 52, RO 240``: events of one run with their optimizer steps, in order."""
    return ", ".join(kind if step is None else f"{kind} {step}" for kind, step in steps)


def steps_of_runs_cell(steps: Iterable[tuple[str, int | None]], runs: int) -> str:
    """``CO 331, 305 (2 of 3 runs); RO 240 (1 of 3 runs)``: one event of each kind and run."""
    return "; ".join(
        " ".join([kind, ", ".join(str(step) for _, step in found if step is not None)]).rstrip()
        + (f" ({len(found)} of {runs} runs)" if runs > 1 else "")
        for kind, found in grouped(steps, lambda event: event[0]).items()
    )
