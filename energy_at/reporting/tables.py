"""Results of runs as a table: Markdown for people, CSV for machines."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from energy_at.runs.folder import RunFolder, folder_names

COLUMNS = (
    "run",
    "checkpoint",
    "images",
    "n",
    "clean %",
    "FGSM %",
    "PGD %",
    "train adv %",
    "AAE share %",
    "dE(x)",
    "dE(x, y)",
)


@dataclass(frozen=True)
class Table:
    """Rows of cells that are ready to print."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        """A Markdown table whose columns line up; a ``|`` in a cell ends none."""
        lines = [[cell.replace("|", r"\|") for cell in line] for line in (self.columns, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(1, ["-" * width for width in widths])
        return "\n".join(
            "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
            for line in lines
        )

    def csv(self) -> str:
        """The same cells, comma-separated."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return out.getvalue()


def results_table(folders: Sequence[RunFolder]) -> Table:
    """One row for each run, checkpoint and image set.

    Accuracies are shares of all images, in percent. ``train adv`` (accuracy under the training
    attack), AAE share and delta energies (nats) are means over the last epoch of training.
    """
    rows = [
        row
        for folder, name in zip(folders, folder_names(folders), strict=True)
        for row in _run_rows(folder, name)
    ]
    return Table(COLUMNS, rows)


def _run_rows(folder: RunFolder, name: str) -> list[tuple[str, ...]]:
    trained = _trained(folder)
    return [
        (
            name,
            which,
            images,
            *_accuracies(shares),
            *(trained if which == "last" else [""] * 4),
        )
        for which, sets in folder.results().items()
        if which in ("last", "best")
        for images, shares in sets.items()
        if images != "step"
    ]


def _accuracies(shares: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(shares["n"]),
        *(
            f"{100 * shares[name]:.1f}" if name in shares else ""
            for name in ("clean", "fgsm", "pgd")
        ),
    )


def _trained(folder: RunFolder) -> list[str]:
    keys = ["acc/adv", "aae_share", "delta_energy/marginal", "delta_energy/joint"]
    log = folder.log()
    means = [log.last_epoch_mean(f"train/{key}") for key in keys]
    forms = [
        f"{100 * means[0]:.1f}",
        f"{100 * means[1]:.1f}",
        f"{means[2]:+.3f}",
        f"{means[3]:+.3f}",
    ]
    return ["" if math.isnan(m) else form for m, form in zip(means, forms, strict=True)]
