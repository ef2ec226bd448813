"""Figures from the rows of ``metrics.csv``; each function returns a matplotlib figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

Rows = Sequence[dict[str, float]]

# Okabe and Ito's palette: safe for colour-blind readers
ERROR, DELTA, JOINT = "#0072B2", "#D55E00", "#E69F00"
METHOD_COLORS = {
    "": "#000000",
    "DER": "#D55E00",
    "GradAlign": "#0072B2",
    "ELLE": "#009E73",
    "ELLE-A": "#56B4E9",
    "AAER": "#CC79A7",
    "AWP": "#E69F00",
}
LINE_STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (7, 2, 1, 2, 1, 2)), (0, (8, 4)))
MARKERS = ("", "o", "s", "^", "D", "v", "P", "X")


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


def methods_figure(methods: Mapping[str, Sequence[Rows]]) -> Figure:
    """All methods on the same axes, over epochs: a thick line for each, thin ones for its seeds.

    From left to right dE(x) and dE(x, y) on the training set, epoch means in nats, and PGD accuracy
    on held-out images.
    """
    if not methods:
        raise ValueError("no run to draw")
    styles = method_styles(list(methods))
    panels = {
        "dE(x), training images [nats]": "train/delta_energy/marginal",
        "dE(x, y), training images [nats]": "train/delta_energy/joint",
        "PGD accuracy, held-out images [%]": "val/acc/pgd",
    }
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        columns = max(1, min(4, 130 // (max(map(len, methods)) + 8)))
        lines = -(-len(methods) // columns)
        figure = Figure(figsize=(10.5, 3.1 + 0.18 * lines), layout="constrained")
        for axes, (label, key) in zip(figure.subplots(1, 3), panels.items(), strict=True):
            for name, seeds in methods.items():
                _method_curves(axes, seeds, key, styles[name])
            axes.set(xlabel="epoch", ylabel=label)
            axes.axhline(0, color="0.7", linewidth=0.6, zorder=0)
        handles = [Line2D([], [], **styles[name]) for name in methods]
        figure.legend(
            handles, list(methods), loc="outside lower center", ncols=columns, frameon=False
        )
    return figure


def method_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour by the regularizer, the same in every figure; dashes, then markers, by all else."""
    variants: dict[tuple[str, ...], int] = {}
    styles = {}
    for name in names:
        method, *settings = name.split(", ")
        base, *added = method.removesuffix(" (collapsed)").split(" + ")
        collapsed = "(collapsed)" if name.endswith("(collapsed)") else ""
        variant = (base, *added[1:], *settings, collapsed)
        round_, dash = divmod(variants.setdefault(variant, len(variants)), len(LINE_STYLES))
        styles[name] = {
            "color": METHOD_COLORS.get(added[0] if added else "", "#999999"),
            "linestyle": LINE_STYLES[dash],
            "marker": MARKERS[round_ % len(MARKERS)],
        }
    return styles


def _method_curves(axes: Axes, seeds: Sequence[Rows], key: str, style: dict[str, Any]) -> None:
    scale = 100 if key.startswith("val/acc") else 1
    curves = [{e: scale * v for e, v in _epoch_means(rows, key).items()} for rows in seeds]
    if len(curves) > 1:
        for curve in curves:
            thin = {**style, "marker": ""}
            axes.plot(list(curve), list(curve.values()), linewidth=0.7, alpha=0.45, **thin)
    epochs = sorted(set.intersection(*map(set, curves)))
    means = [float(np.mean([curve[epoch] for curve in curves])) for epoch in epochs]
    shown = style if len(epochs) > 1 else {**style, "marker": style["marker"] or "o"}
    axes.plot(epochs, means, linewidth=1.8, markersize=4, **shown)


def _epoch_means(rows: Rows, key: str) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for row in rows:
        if key in row:
            values.setdefault(int(row["epoch"]) + 1, []).append(row[key])
    return {epoch: float(np.mean(found)) for epoch, found in values.items()}


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
