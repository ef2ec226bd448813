"""Eight panels of what a training logs: of one run by step, of many by epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from energy_at.overfitting.alarms import Kind
from energy_at.reporting.describe import MethodLabel
from energy_at.reporting.figures.delta_energy import method_curves
from energy_at.reporting.figures.style import (
    OPEN,
    WIDTH,
    Mark,
    Style,
    alarms_of,
    entitle,
    labelled,
    legend_height,
    mark_alarms,
    method_alarms,
    method_styles,
    methods_legend,
)
from energy_at.reporting.panels import (
    AAE,
    ATTACKED,
    CLEAN,
    DELTA_X,
    DELTA_XY,
    FGSM,
    HELD_OUT_CLEAN,
    PGD,
    SHIFT,
    Metric,
)
from energy_at.runs.metrics_log import Binned, Curve, MetricsLog

BINS = 400  # of a curve by step: a panel can show no more
LINE = 24  # characters of an axis label
PANELS = (DELTA_X, DELTA_XY, SHIFT, AAE, CLEAN, ATTACKED, FGSM, PGD)
HELD_OUT = {CLEAN: HELD_OUT_CLEAN}  # drawn into the panel of the other
MARKS = {"CO": "--", "RO": ":"}


@dataclass(frozen=True)
class Training:
    """A log, and the steps from which robustness is lost, by ``CO`` or ``RO``."""

    log: MetricsLog
    onsets: Mapping[Kind, int] = field(default_factory=dict)


def steps_figure(training: Training, style: Style, title: str = "") -> Figure:
    """One run by optimizer step: its range and mean, its epoch means (thick), onsets and alarms.

    Neighbouring steps of a long run share one of ``BINS`` bins.

    Raises:
        ValueError: if the run has no training step.
    """
    per_epoch = training.log.steps_per_epoch
    color = str(style["color"])
    with mpl.rc_context(OPEN):
        figure, grid = _panels(0.0)
        for axes, metric in zip(grid, PANELS, strict=True):
            _steps(axes, training.log, metric, color)
            if metric in HELD_OUT:
                _held_out(axes, training.log, HELD_OUT[metric], color)
            for name, step in training.onsets.items():
                _mark(axes, name, step, f"{name}, step {step}", color="0.25")
            mark_alarms(axes, alarms_of(training.log, by_epoch=False))
            axes.set_ylabel(fill(metric.axis, LINE))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.xaxis.set_major_locator(MaxNLocator(4))
        for axes in grid[4:]:
            axes.set_xlabel(f"optimizer step ({per_epoch:,.0f} per epoch)")
        entitle(figure, title)
    return figure


def epochs_figure(methods: Mapping[MethodLabel, Sequence[Training]], title: str = "") -> Figure:
    """All methods by epoch: the mean of the seeds (thick), each seed (thin), onsets and alarms."""
    styles = method_styles(list(methods))
    logs = {name: [seed.log for seed in seeds] for name, seeds in methods.items()}
    with mpl.rc_context(OPEN):
        figure, grid = _panels(legend_height(styles))
        for axes, metric in zip(grid, PANELS, strict=True):
            for name, seeds in logs.items():
                method_curves(axes, seeds, metric, styles[name])
            _scale(axes, metric, [np.asarray(line.get_ydata()) for line in axes.get_lines()])
            _epoch_marks(axes, methods, styles)
            mark_alarms(axes, method_alarms(logs, styles))
            axes.set_ylabel(fill(metric.axis, LINE))
        for axes in grid[4:]:
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        methods_legend(figure, styles)
        entitle(figure, title)
    return figure


def _panels(extra: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, 4.9 + extra), layout="constrained")
    return figure, list(figure.subplots(2, 4, sharex=True).flat)


def _steps(axes: Axes, log: MetricsLog, metric: Metric, color: str) -> None:
    curve, scale = log[metric.key], metric.scale
    per_epoch = log.steps_per_epoch
    if metric.key.startswith("val/"):
        axes.plot(curve.steps, scale * curve.values, color=color, **_dots(curve))
        return _scale(axes, metric, [scale * curve.values])
    bins = curve.binned(BINS)
    axes.fill_between(
        bins.steps, scale * bins.low, scale * bins.high, color=color, alpha=0.2, linewidth=0
    )
    axes.plot(bins.steps, scale * bins.mean, color=color, linewidth=0.5, alpha=0.5)
    means = curve.epoch_means()
    middles = [(epoch - 0.5) * per_epoch for epoch in means]
    values = scale * np.array(list(means.values()))
    marker = "o" if len(means) == 1 else ""
    axes.plot(middles, values, color=color, linewidth=1.8, marker=marker, markersize=4)
    return _scale(axes, metric, [values, *_usual(bins)])


def _held_out(axes: Axes, log: MetricsLog, metric: Metric, color: str) -> None:
    curve = log[metric.key]
    (line,) = axes.plot(
        curve.steps,
        metric.scale * curve.values,
        color=color,
        linestyle=":",
        linewidth=1,
        **_dots(curve),
    )
    if len(curve):
        axes.legend([line], ["held-out"], frameon=False, fontsize="small", loc="best")


def _dots(curve: Curve) -> dict[str, Any]:
    """Of a few validations each can be drawn."""
    return {"marker": "o", "markersize": 3} if len(curve) <= 40 else {}


def _usual(bins: Binned) -> list[Any]:
    """The range of nearly all steps: a single one may leave the panel."""
    low, high = bins.low[np.isfinite(bins.low)], bins.high[np.isfinite(bins.high)]
    return [np.quantile(low, [0.02]), np.quantile(high, [0.98])] if len(low) and len(high) else []


def _scale(axes: Axes, metric: Metric, values: Sequence[Any]) -> None:
    """Shares from 0 to 100; anything else as far as it goes, with zero."""
    if metric.unit == "%":
        axes.set_ylim(-3, 103)
        return
    drawn = np.concatenate([np.zeros(1), *(v[np.isfinite(v)] for v in values)])
    margin = 0.06 * max(drawn.max() - drawn.min(), 1e-3)
    axes.set_ylim(drawn.min() - margin, drawn.max() + margin)
    axes.axhline(0, color="0.7", linewidth=0.6, zorder=0)


def _epoch_marks(
    axes: Axes,
    methods: Mapping[MethodLabel, Sequence[Training]],
    styles: Mapping[MethodLabel, Style],
) -> None:
    """A line in the colour of the method for each onset; of a crowd only the first has a label."""
    found = [
        Mark(kind, step / seed.log.steps_per_epoch, styles[name]["color"])
        for name, seeds in methods.items()
        for seed in seeds
        for kind, step in seed.onsets.items()
    ]
    for mark, label in labelled(axes, found):
        _mark(axes, mark.kind, mark.where, label, color=mark.color)


def _mark(axes: Axes, kind: str, where: float, label: str, *, color: str) -> None:
    axes.axvline(where, color=color, linestyle=MARKS[kind], linewidth=0.9, zorder=1)
    axes.annotate(
        label,
        (where, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize="x-small",
        color=color,
    )
