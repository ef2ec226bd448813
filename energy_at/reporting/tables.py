"""Tables as Markdown, LaTeX and CSV, and the cells that several tables share."""

import csv
import io
import re
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from energy_at.core.files import write_atomic
from energy_at.core.progress import printable

TERMINAL = 80  # columns of the narrowest terminal
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
LATEX = {  # what LaTeX would interpret
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
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
        lines = [
            [printable(cell).replace("|", r"\|") for cell in line]
            for line in (self.columns, *self.rows)
        ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(1, ["-" * width for width in widths])
        return "\n".join(
            "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
            for line in lines
        )

    def latex(self) -> str:
        """A table for LaTeX with the package booktabs; columns of numbers are aligned right."""
        columns = list(zip(*self.rows, strict=True))
        places = "".join("r" if any(c) and all(map(_is_number, c)) else "l" for c in columns)
        lines = [" & ".join(map(_latex, line)) + r" \\" for line in (self.columns, *self.rows)]
        head, *body = (f"  {line}" for line in lines)
        begin = rf"\begin{{tabular}}{{{places or 'l' * len(self.columns)}}}"
        rules = [begin, r"  \toprule", head, r"  \midrule", *body, r"  \bottomrule"]
        return "\n".join([*rules, r"\end{tabular}"])

    def write(self, stem: Path, above: str = "", numbers: "Table | None" = None) -> None:
        """Writes ``stem.md``, ``stem.tex`` and ``stem.csv``, which holds ``numbers`` if given."""
        text = self.markdown().replace("<", "&lt;")  # of a name: no tag
        write_atomic(stem.with_name(f"{stem.name}.md"), f"{above}{text}\n")
        write_atomic(stem.with_name(f"{stem.name}.tex"), f"{self.latex()}\n")
        write_atomic(stem.with_name(f"{stem.name}.csv"), (numbers or self).csv())

    def fitted(self, optional: Sequence[str] = (), width: int = TERMINAL) -> str:
        """The table as Markdown for a terminal: no line is wider than ``width``.

        As far as needed the optional columns are left out in their order, then the ranges and the
        errors of means, then the middle of the longest cells.
        """
        table = self
        for name in optional:
            if table._width() > width and name in table.columns:
                table = table._without(name)
        if table._width() > width:
            rows = [
                tuple(re.sub(r" (\[[^]]*\]|± \S+)", "", cell) for cell in row) for row in table.rows
            ]
            table = Table(table.columns, rows)
        while (over := table._width() - width) > 0:
            widths = [max(map(len, column)) for column in zip(*table.rows, strict=True)]
            second, longest = sorted([8, *widths])[-2:]
            if longest <= 8:
                break
            most = max(second - 1, longest - over, 8)
            rows = [tuple(_shortened(cell, most) for cell in row) for row in table.rows]
            table = Table(table.columns, rows)
        return table.markdown()

    def _width(self) -> int:
        return len(self.markdown().partition("\n")[0])

    def _without(self, name: str) -> "Table":
        place = self.columns.index(name)
        rows = [(*row[:place], *row[place + 1 :]) for row in self.rows]
        return Table((*self.columns[:place], *self.columns[place + 1 :]), rows)

    def csv(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerows([[_inert(cell) for cell in row] for row in (self.columns, *self.rows)])
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


def spread(values: Iterable[float | None]) -> dict[str, float | int | None]:
    """``n``, ``mean``, ``std``, ``min`` and ``max`` of the values that are known.

    The standard deviation is that of a sample (n - 1); ``None`` of fewer than two values.
    """
    known = [value for value in values if value is not None and value == value]
    return {
        "n": len(known),
        "mean": statistics.fmean(known) if known else None,
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "min": min(known, default=None),
        "max": max(known, default=None),
    }


def mean_and_error_cell(values: Iterable[float | None], form: str = ".1f") -> str:
    """``34.2 ± 0.4``: mean and its standard error; ``34.2`` of one value, empty of none."""
    found = spread(values)
    if found["mean"] is None:
        return ""
    mean = f"{found['mean']:{form}}"
    if found["std"] is None or found["n"] is None:
        return mean
    return f"{mean} ± {found['std'] / found['n'] ** 0.5:{form}}"


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


def _inert(cell: Any) -> Any:
    """A cell of which no spreadsheet makes a formula; numbers stay numbers."""
    if not isinstance(cell, str):
        return cell
    text = printable(cell)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) and not _is_number(text) else text


def _latex(cell: Any) -> str:
    text = "".join(LATEX.get(sign, sign) for sign in printable(str(cell)))
    return f"{{{text}}}" if text.startswith("[") else text  # else an argument of the line before


def _is_number(cell: Any) -> bool:
    """Also a mean with its range or deviation, and an empty cell."""
    return not re.search("[A-Za-z]", str(cell))


def _shortened(cell: str, most: int) -> str:
    """Its two ends: names of methods differ at the last one."""
    end = (2 * most) // 3
    return cell if len(cell) <= most else cell[: most - 1 - end] + ELLIPSIS + cell[-end:]
