"""Delta energy over training: single runs with their PGD error, and methods over seeds."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from energy_at.reporting.describe import MethodLabel
from energy_at.reporting.figures.style import (
    OPEN,
    WIDTH,
    Style,
    alarms_of,
    entitle,
    legend_height,
    mark_alarms,
    method_alarms,
    method_styles,
    methods_legend,
)
from energy_at.reporting.panels import DELTA_X, DELTA_XY, PGD, Metric
from energy_at.runs.metrics_log import MetricsLog

BINS = 2000  # of a curve by step


def delta_energy_figure(runs: Mapping[str, MetricsLog], title: str = "") -> Figure:
    """Delta energy on the training set and PGD error on held-out images over training.

    One panel for each run, two side by side, on the same axes: dE(x) and dE(x, y) per step (thin)
    and per epoch (thick) on the right axis, PGD error after each epoch on the left axis
    (arXiv 2505.22486). Triangles are alarms of the sentinel.

    Raises:
        ValueError: if there is no run, or a run has no training step.
    """
    if not runs:
        raise ValueError("no run to draw")
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False}):
        columns, lines = min(2, len(runs)), -(-len(runs) // 2)
        figure = Figure(figsize=(max(5.6, 4.2 * columns), 0.4 + 2.8 * lines), layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
        for axes in panels[len(runs) :]:
            axes.remove()
        twins = [
            _panel(axes, name, log) for axes, (name, log) in zip(panels, runs.items(), strict=False)
        ]
        _share_limits(twins, columns)
        entitle(figure, title)
        for axes in panels[: len(runs) : columns]:
            axes.set_ylabel("PGD error,\nheld-out images [%]", color=PGD.color)
        for twin in _rightmost(twins, columns):
            twin.set_ylabel("delta energy,\ntraining images [nats]", color=DELTA_X.color)
        handles = [*panels[0].get_lines()[:1], *twins[0].get_lines()[1::2]]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def methods_figure(methods: Mapping[MethodLabel, Sequence[MetricsLog]], title: str = "") -> Figure:
    """Delta energies and PGD accuracy by epoch: mean of the seeds (thick), each seed (thin).

    Shift of the energies on training images, accuracy on held-out images. Triangles are alarms of
    the sentinel.

    Raises:
        ValueError: if there is no method.
    """
    if not methods:
        raise ValueError("no run to draw")
    styles = method_styles(list(methods))
    with mpl.rc_context(OPEN):
        figure = Figure(figsize=(WIDTH, 3.1 + legend_height(styles)), layout="constrained")
        for axes, metric in zip(figure.subplots(1, 3), (DELTA_X, DELTA_XY, PGD), strict=True):
            for label, seeds in methods.items():
                method_curves(axes, seeds, metric, styles[label])
            mark_alarms(axes, method_alarms(methods, styles))
            axes.set(xlabel="epoch", ylabel=metric.axis)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.axhline(0, color="0.7", linewidth=0.6, zorder=0)
        methods_legend(figure, styles)
        entitle(figure, title)
    return figure


def method_curves(axes: Axes, seeds: Sequence[MetricsLog], metric: Metric, style: Style) -> None:
    """Epoch means: thick for the mean of the seeds, thin for each of them."""
    curves = [
        {epoch: metric.scale * mean for epoch, mean in log[metric.key].epoch_means().items()}
        for log in seeds
    ]
    if len(curves) > 1:
        for curve in curves:
            thin = style | {"marker": ""}
            axes.plot(list(curve), list(curve.values()), linewidth=0.7, alpha=0.45, **thin)
    epochs = sorted(set.intersection(*map(set, curves)))
    means = [float(np.mean([curve[epoch] for curve in curves])) for epoch in epochs]
    drawn = style if len(epochs) > 1 else style | {"marker": style["marker"] or "o"}
    axes.plot(epochs, means, linewidth=1.8, markersize=4, **drawn)


def _panel(axes: Axes, name: str, log: MetricsLog) -> Axes:
    twin, pgd = axes.twinx(), log[PGD.key]
    axes.plot(
        pgd.steps / log.steps_per_epoch,
        100 * (1 - pgd.values),
        color=PGD.color,
        marker="o",
        markersize=3,
        label="PGD error (held-out)",
    )
    for metric in (DELTA_X, DELTA_XY):
        _curve(twin, log, metric)
    twin.axhline(0, color="0.7", linewidth=0.6, zorder=0)
    mark_alarms(axes, alarms_of(log))
    axes.set(title=name, xlabel="epoch", ylim=(-3, 103))
    axes.set_zorder(twin.get_zorder() + 1)
    axes.patch.set_visible(False)
    return twin


def _curve(axes: Axes, log: MetricsLog, metric: Metric) -> None:
    curve, color = log[metric.key], metric.color
    bins = curve.binned(BINS)
    epochs = bins.steps / log.steps_per_epoch
    axes.plot(epochs, bins.mean, color=color, linewidth=0.5, alpha=0.3)
    if len(curve) > BINS:
        axes.fill_between(epochs, bins.low, bins.high, color=color, alpha=0.15, linewidth=0)
    means = curve.epoch_means()
    axes.plot(list(means), list(means.values()), color=color, label=f"{metric.short} (training)")


def _rightmost(twins: Sequence[Axes], columns: int) -> list[Axes]:
    return [t for i, t in enumerate(twins, 1) if i % columns == 0 or i == len(twins)]


def _share_limits(twins: Sequence[Axes], columns: int) -> None:
    """The same right axis everywhere, set by the epoch means: single steps may leave it."""
    means = np.concatenate(
        [np.asarray(line.get_ydata()) for t in twins for line in t.get_lines()[1:4:2]]
    )
    means = means[np.isfinite(means)]
    low, high = (means.min(), means.max()) if len(means) else (-1.0, 1.0)
    margin = 0.15 * max(high - low, 0.1)
    labelled = _rightmost(twins, columns)
    for twin in twins:
        twin.set_ylim(min(low, 0) - margin, max(high, 0) + margin)
        twin.tick_params(labelright=twin in labelled)
