"""Curves of trainings: the paper's figure of delta energies, one run by step, methods by epoch."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from energy_at.reporting import panels
from energy_at.reporting.describe import ROBUST, MethodLabel
from energy_at.reporting.figures import (
    MARK_STYLES,
    WIDTH,
    Mark,
    Style,
    entitle,
    mark_alarms,
    mark_onsets,
    method_styles,
    share_y,
    show_spikes,
    subplots,
    two_lines,
)
from energy_at.reporting.finished_run import FinishedRun
from energy_at.reporting.panels import DELTA_X, DELTA_XY, PGD, Metric
from energy_at.runs.metrics_log import Curve, MetricsLog

FINE_BINS = 2000  # of a curve by step, in the figure of delta energies
BINS = 400  # in one of eight panels, which can show no more
SYMLOG = ", symlog"  # behind the label of such an axis
LINE, TITLE = 24, 38  # characters of a line: of an axis label, of the title of a panel
SUMMARY = (DELTA_X, DELTA_XY, PGD)
PANELS = (
    *(DELTA_X, DELTA_XY, panels.SHIFT, panels.AAE),
    *(panels.CLEAN, panels.ATTACKED, panels.FGSM, PGD),
)
Methods = Mapping[MethodLabel, Sequence[FinishedRun]]


def delta_energy_figure(runs: Mapping[str, MetricsLog], title: str = "") -> Figure:
    """Delta energy on the training set and PGD error on held-out images over training.

    One panel for each run, two side by side, on the same axes: dE(x) and dE(x, y) per step (thin)
    and per epoch (thick) on the right axis, which holds every step; PGD error after each epoch on
    the left axis (arXiv 2505.22486). Triangles are alarms of the sentinel.

    Raises:
        ValueError: if there is no run, or a run has no training step.
    """
    if not runs:
        raise ValueError("no run to draw")
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "legend.frameon": False}):
        columns, lines = min(2, len(runs)), -(-len(runs) // 2)
        figure = Figure(figsize=(max(5.6, 4.2 * columns), 0.4 + 2.8 * lines), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
        for axes in grid[len(runs) :]:
            axes.remove()
        panels_of_runs = zip(grid, runs.items(), strict=False)
        twins = [_run(axes, name, log) for axes, (name, log) in panels_of_runs]
        rightmost = [t for i, t in enumerate(twins, 1) if i % columns == 0 or i == len(twins)]
        for twin in twins[1:]:
            twin.sharey(twins[0])
        traces = [log[metric.key].values for log in runs.values() for metric in (DELTA_X, DELTA_XY)]
        is_symlog = show_spikes(twins[0], traces)
        twins[0].autoscale(axis="y")  # over the steps of all runs
        entitle(figure, title)
        for axes in grid[: len(runs) : columns]:
            axes.set_ylabel("PGD error,\nheld-out images [%]", color=PGD.color)
        for twin in twins:
            twin.tick_params(labelright=twin in rightmost)
        for twin in rightmost:
            label = "delta energy,\ntraining images [nats]" + SYMLOG * is_symlog
            twin.set_ylabel(label, color=DELTA_X.color)
        handles = [*grid[0].get_lines()[:1], *twins[0].get_lines()[1::2]]
        if any(log.alarms for log in runs.values()):
            name = "alarm of the sentinel"
            handles.append(Line2D([], [], label=name, **MARK_STYLES[name]))
        figure.legend(handles=handles, loc="outside lower center", ncols=2 * columns - 1)
    return figure


def methods_figure(
    methods: Methods, title: str = "", metrics: Sequence[Metric] = SUMMARY
) -> Figure:
    """Methods by epoch: the mean of the seeds (thick), each seed (thin), onsets and alarms.

    Of runs that collapsed or are not robust there is no mean. The legend names every mark.

    Raises:
        ValueError: if there is no method.
    """
    if not methods:
        raise ValueError("no run to draw")
    styles = method_styles(list(methods))
    runs = [(run, styles[label]["color"]) for label, seeds in methods.items() for run in seeds]

    def marks(events: Callable[[FinishedRun], Iterable[tuple[str, int]]]) -> list[Mark]:
        return [
            Mark(kind, step / run.log.steps_per_epoch, color, is_followed=run.is_marked)
            for run, color in runs
            for kind, step in events(run)
        ]

    alarms = marks(lambda run: run.log.alarms)
    onsets = marks(lambda run: run.status.onsets.items())
    kinds = sorted({f"onset of {mark.kind}" for mark in onsets})
    several = any(len(seeds) > 1 for seeds in methods.values())
    names = ["one seed"] * several + kinds
    names += ["alarm of the sentinel"] * any(mark.is_followed for mark in alarms)
    names += ["alarm, no loss of robustness"] * any(not mark.is_followed for mark in alarms)
    legend = styles | {name: MARK_STYLES[name] for name in names}
    named = len({mark.kind for mark in (*alarms, *onsets)}) > 1  # else the legend says it
    with _panels(metrics, "epoch", title, legend) as (figure, grid):
        for axes, metric in zip(grid, metrics, strict=True):
            for label, seeds in methods.items():
                has_mean = len(seeds) == 1 or label.status in ("", ROBUST)
                _method_curves(axes, seeds, metric, styles[label], has_mean=has_mean)
            mark_onsets(axes, onsets, named=named)
            mark_alarms(axes, alarms, named=named)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return figure


def steps_figure(run: FinishedRun, style: Style, title: str = "") -> Figure:
    """One run by optimizer step (thin), its epoch means (thick), onsets and alarms.

    Neighbouring steps of a long run share one of ``BINS`` bins, drawn by its range and mean.

    Raises:
        ValueError: if the run has no training step.
    """
    log = run.log
    onsets = [
        Mark(kind, step, label=f"{kind}, step {step}") for kind, step in run.status.onsets.items()
    ]
    xlabel = f"step ({log.steps_per_epoch:,.0f} per epoch)"
    is_long = len(log[DELTA_X.key]) > BINS
    names = ["range of steps", "mean of neighbouring steps"] if is_long else ["one step"]
    names += ["mean of an epoch"] + [f"onset of {mark.kind}" for mark in onsets]
    names += ["alarm of the sentinel"] * bool(log.alarms)
    legend = {name: MARK_STYLES[name] for name in names}
    with _panels(PANELS, xlabel, title, legend) as (figure, grid):
        for axes, metric in zip(grid, PANELS, strict=True):
            _steps(axes, log, metric, str(style["color"]))
            mark_onsets(axes, onsets)
            mark_alarms(axes, [Mark(kind, step) for kind, step in log.alarms])
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.xaxis.set_major_locator(MaxNLocator(4))
    return figure


def _run(axes: Axes, name: str, log: MetricsLog) -> Axes:
    """PGD error of a run; delta energies on a second axis, which is returned."""
    twin, pgd = axes.twinx(), log[PGD.key]
    axes.plot(
        pgd.steps / log.steps_per_epoch,
        100 * (1 - pgd.values),
        color=PGD.color,
        marker="o",
        markersize=3,
        label="PGD error",
    )
    for metric in (DELTA_X, DELTA_XY):
        curve, color = log[metric.key], metric.color
        bins, means = curve.binned(FINE_BINS), curve.epoch_means()
        epochs = bins.steps / log.steps_per_epoch
        twin.plot(epochs, bins.mean, color=color, linewidth=0.5, alpha=0.3)
        if len(curve) > FINE_BINS:
            twin.fill_between(epochs, bins.low, bins.high, color=color, alpha=0.15, linewidth=0)
        label = f"{metric.short}: steps (thin), epoch means (thick)"
        twin.plot(list(means), list(means.values()), color=color, label=label)
    _zero_line(twin)
    mark_alarms(axes, [Mark(kind, step / log.steps_per_epoch) for kind, step in log.alarms])
    axes.set(title=two_lines(name, TITLE), xlabel="epoch", ylim=(-3, 103))
    axes.set_zorder(twin.get_zorder() + 1)
    axes.patch.set_visible(False)
    return twin


def _method_curves(
    axes: Axes, seeds: Sequence[FinishedRun], metric: Metric, style: Style, *, has_mean: bool
) -> None:
    """Epoch means: thin for each of several seeds, thick for their mean."""
    curves = [
        {epoch: metric.scale * mean for epoch, mean in run.log[metric.key].epoch_means().items()}
        for run in seeds
    ]
    for curve in curves if len(curves) > 1 else []:
        thin = style | {"marker": "", "linewidth": 0.7, "alpha": 0.45 if has_mean else 1}
        axes.plot(list(curve), list(curve.values()), **thin)
    if not has_mean:
        return
    epochs = sorted(set.intersection(*map(set, curves)))
    means = [float(np.mean([curve[epoch] for curve in curves])) for epoch in epochs]
    drawn = style if len(epochs) > 1 else style | {"marker": style["marker"] or "o"}
    axes.plot(epochs, means, linewidth=1.8, markersize=4, **drawn)


@contextmanager
def _panels(
    metrics: Sequence[Metric],
    xlabel: str,
    title: str,
    styles: Mapping[Any, Style] | None = None,
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A panel for each metric, at most four side by side."""
    columns, rows = min(4, len(metrics)), -(-len(metrics) // 4)
    size = (WIDTH, 1.3 + 1.8 * rows)
    with subplots(rows, columns, size, title, styles, sharex=True) as (figure, grid):
        yield figure, grid
        for axes, metric in zip(grid, metrics, strict=True):
            symlog = SYMLOG * (axes.get_yscale() == "symlog")
            axes.set_ylabel(fill(metric.axis, LINE) + symlog)
            _scale(axes, metric)
        compared = (DELTA_X, DELTA_XY)
        if shifts := [a for a, m in zip(grid, metrics, strict=True) if m in compared]:
            share_y(shifts)
        for axes in grid[-columns:]:
            axes.set_xlabel(xlabel)


def _steps(axes: Axes, log: MetricsLog, metric: Metric, color: str) -> None:
    curve, scale = log[metric.key], metric.scale
    if metric.key.startswith("val/"):
        axes.plot(curve.steps, scale * curve.values, color=color, **_dots(curve))
        return
    bins, means = curve.binned(BINS), curve.epoch_means()
    if metric.unit == "nats":
        show_spikes(axes, [log[key].values for key in _compared(metric)])
    low, high = scale * bins.low, scale * bins.high
    axes.fill_between(bins.steps, low, high, color=color, alpha=0.2, linewidth=0)
    axes.plot(bins.steps, scale * bins.mean, color=color, linewidth=0.5, alpha=0.5)
    middles = [(epoch - 0.5) * log.steps_per_epoch for epoch in means]
    values = scale * np.array(list(means.values()))
    marker = "o" if len(means) == 1 else ""
    axes.plot(middles, values, color=color, linewidth=1.8, marker=marker, markersize=4)
    if metric == panels.CLEAN and len(held_out := log[panels.HELD_OUT_CLEAN.key]):
        thin: Style = {"color": color, "linestyle": ":", "linewidth": 1, **_dots(held_out)}
        (line,) = axes.plot(held_out.steps, scale * held_out.values, **thin)
        axes.legend([line], ["held-out"], frameon=False, fontsize="small", loc="best")


def _dots(curve: Curve) -> Style:
    return {"marker": "o", "markersize": 3} if len(curve) <= 40 else {}


def _scale(axes: Axes, metric: Metric) -> None:
    """Shares from 0 to 100; anything else as far as it was drawn, with zero."""
    if metric.unit == "%":
        axes.set_ylim(-3, 103)
    else:
        _zero_line(axes)


def _compared(metric: Metric) -> list[str]:
    """Keys of the metrics whose panels have the same limits."""
    together = (DELTA_X, DELTA_XY)
    return [one.key for one in (together if metric in together else (metric,))]


def _zero_line(axes: Axes) -> None:
    axes.axhline(0, color="0.7", linewidth=0.6, zorder=0)
