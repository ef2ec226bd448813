"""Accuracy and delta energy against a number that was swept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from energy_at.reporting.figures.style import (
    OPEN,
    WIDTH,
    legend_height,
    method_styles,
    methods_legend,
)

PANELS = {
    "held-out PGD %": "PGD accuracy, held-out images [%]",
    "test PGD %": "PGD accuracy, test images [%]",
    "dE(x)": "dE(x), training images [nats]",
    "dE(x, y)": "dE(x, y), training images [nats]",
}
WIDE = 20  # ratio of the greatest to the least positive value from which the axis is logarithmic


@dataclass(frozen=True)
class Point:
    """A run.

    Attributes:
        x: The number.
        measured: What was measured of it, by its name in ``PANELS``; ``None`` if it was not.
        lost: Whether it collapsed, or has not learned.
    """

    x: float
    measured: Mapping[str, float | None]
    lost: bool


def dependence_figure(key: str, curves: Mapping[str, Sequence[Point]]) -> Figure:
    """Mean over seeds with a bar from the least to the greatest; lost runs as crosses of their own.

    Args:
        key: What was swept.
        curves: Runs by everything else that differs.
    """
    styles = method_styles(list(curves))
    colors = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    for place, style in enumerate(styles.values()):
        style |= {"color": colors[place % len(colors)], "linestyle": "-", "marker": "o"}
    with mpl.rc_context(OPEN):
        figure = Figure(figsize=(WIDTH, 5.6 + legend_height(styles)), layout="constrained")
        for axes, (name, label) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
            for curve, points in curves.items():
                _draw(axes, points, name, styles[curve])
            axes.set(xlabel=key, ylabel=label)
            _scale(axes, [point.x for points in curves.values() for point in points])
        if any(curves):
            methods_legend(figure, styles)
    return figure


def _draw(axes: Axes, points: Sequence[Point], name: str, style: Mapping[str, object]) -> None:
    sound: dict[float, list[float]] = {}
    for point in points:
        value = point.measured.get(name)
        if value is None:
            continue
        if point.lost:
            axes.plot(point.x, value, "x", color=style["color"])
        else:
            sound.setdefault(point.x, []).append(value)
    if sound:
        means = [sum(values) / len(values) for values in sound.values()]
        below = [mean - min(v) for mean, v in zip(means, sound.values(), strict=True)]
        above = [max(v) - mean for mean, v in zip(means, sound.values(), strict=True)]
        axes.errorbar(list(sound), means, yerr=[below, above], capsize=3, **style)  # type: ignore[arg-type]


def _scale(axes: Axes, values: Sequence[float]) -> None:
    positive = sorted(value for value in values if value > 0)
    if positive and positive[-1] > WIDE * positive[0]:
        axes.set_xscale("symlog", linthresh=positive[0])
