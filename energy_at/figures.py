"""Figures from the rows of ``metrics.csv``; each function returns a matplotlib figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Rows = Sequence[dict[str, float]]

# Okabe and Ito's palette: safe for colour-blind readers
ERROR, DELTA, JOINT = "#0072B2", "#D55E00", "#E69F00"


def delta_energy_figure(runs: Mapping[str, Rows]) -> Figure:
    """Delta energy on the training set and PGD error on held-out images over training.

    One panel for each run, side by side, on the same axes: dE(x) and dE(x, y) per step (thin) and
    per epoch (thick) on the right axis, PGD error after each epoch on the left axis
    (arXiv 2505.22486).
    """
    if not runs:
        raise ValueError("no run to draw")
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False}):
        figure = Figure(figsize=(max(5.6, 4.2 * len(runs)), 3.2), layout="constrained")
        panels = figure.subplots(1, len(runs), squeeze=False, sharey=True)[0]
        twins = []
        for axes, (name, rows) in zip(panels, runs.items(), strict=True):
            twins.append(_panel(axes, name, rows))
        _share_limits(twins)
        panels[0].set_ylabel("PGD error, held-out images [%]", color=ERROR)
        twins[-1].set_ylabel("delta energy, training images [nats]", color=DELTA)
        handles = [*panels[0].get_lines()[:1], *twins[0].get_lines()[1::2]]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def save(figure: Figure, stem: Path) -> list[Path]:
    """Writes ``stem.png`` and ``stem.pdf``."""
    paths = [stem.with_name(stem.name + suffix) for suffix in (".png", ".pdf")]
    figure.savefig(paths[0], dpi=160, metadata={"Software": None})
    figure.savefig(paths[1], metadata={"CreationDate": None})
    return paths


def _panel(axes: Axes, name: str, rows: Rows) -> Axes:
    steps_per_epoch = _steps_per_epoch(rows)
    twin = axes.twinx()
    validated = [row for row in rows if "val/acc/pgd" in row]
    axes.plot(
        [row["step"] / steps_per_epoch for row in validated],
        [100 * (1 - row["val/acc/pgd"]) for row in validated],
        color=ERROR, marker="o", markersize=3, label="PGD error (held-out)",
    )  # fmt: skip
    _curve(twin, rows, "train/delta_energy/marginal", DELTA, "dE(x) (training)")
    _curve(twin, rows, "train/delta_energy/joint", JOINT, "dE(x, y) (training)")
    twin.axhline(0, color="0.7", linewidth=0.6, zorder=0)
    axes.set(title=name, xlabel="epoch", ylim=(-3, 103))
    axes.set_zorder(twin.get_zorder() + 1)
    axes.patch.set_visible(False)
    return twin


def _curve(axes: Axes, rows: Rows, key: str, color: str, label: str) -> None:
    logged = [row for row in rows if key in row]
    values = np.array([row[key] for row in logged])
    epochs = np.array([row["epoch"] for row in logged])
    steps = np.array([row["step"] for row in logged]) / _steps_per_epoch(rows)
    axes.plot(steps, values, color=color, linewidth=0.5, alpha=0.3)
    whole = np.unique(epochs)
    means = [values[epochs == epoch].mean() for epoch in whole]
    axes.plot(whole + 1, means, color=color, label=label)


def _share_limits(twins: Sequence[Axes]) -> None:
    """The same right axis everywhere, set by the epoch means: single steps may leave it."""
    means = np.concatenate(
        [np.asarray(line.get_ydata()) for t in twins for line in t.get_lines()[1:4:2]]
    )
    means = means[np.isfinite(means)]
    low, high = (means.min(), means.max()) if len(means) else (-1.0, 1.0)
    margin = 0.15 * max(high - low, 0.1)
    for twin in twins:
        twin.set_ylim(min(low, 0) - margin, max(high, 0) + margin)
    for twin in twins[:-1]:
        twin.tick_params(labelright=False)


def _steps_per_epoch(rows: Rows) -> float:
    steps = [row for row in rows if "train/loss" in row]
    if not steps:
        raise ValueError("there is no training step in the metrics: nothing to draw")
    return max(row["step"] for row in steps if row["epoch"] == steps[0]["epoch"])
