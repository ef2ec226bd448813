"""Results of runs as a table: Markdown for people, CSV for machines."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from energy_at.runs import RunFolder

COLUMNS = (
    "run",
    "checkpoint",
    "images",
    "n",
    "clean %",
    "FGSM %",
    "PGD %",
    "train FGSM %",
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
        """A Markdown table whose columns line up."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        ruler = tuple("-" * width for width in widths)
        return "\n".join(
            "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
            for line in (self.columns, ruler, *self.rows)
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

    Accuracies are shares of all images, in percent. ``train FGSM`` (accuracy under the training
    attack), AAE share and delta energies (nats) are means over the last epoch of training.
    """
    rows = [row for folder in folders for row in _run_rows(folder)]
    return Table(COLUMNS, rows)


def last_epoch_means(metrics: Sequence[dict[str, float]], names: Sequence[str]) -> list[float]:
    """Means over the training steps of the last epoch; NaN for what was not logged."""
    steps = [row for row in metrics if "train/loss" in row]
    last = [row for row in steps if row["epoch"] == steps[-1]["epoch"]]
    return [_mean([row[name] for row in last if name in row]) for name in names]


def _run_rows(folder: RunFolder) -> list[tuple[str, ...]]:
    trained = _trained(folder)
    return [
        (
            folder.path.name,
            which,
            images,
            *_accuracies(shares),
            *(trained if which == "last" else [""] * 4),
        )
        for which, sets in folder.results().items()
        if which != "training"
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
    if not folder.metrics_file.is_file():
        return [""] * 4
    names = ["acc/adv", "aae_share", "delta_energy/marginal", "delta_energy/joint"]
    means = last_epoch_means(folder.metrics(), [f"train/{name}" for name in names])
    forms = [
        f"{100 * means[0]:.1f}",
        f"{100 * means[1]:.1f}",
        f"{means[2]:+.3f}",
        f"{means[3]:+.3f}",
    ]
    return ["" if math.isnan(m) else form for m, form in zip(means, forms, strict=True)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
