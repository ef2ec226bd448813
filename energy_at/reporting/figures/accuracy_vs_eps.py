"""Robust accuracy against the radius of the threat model, as a matplotlib figure."""

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from energy_at.reporting.figures.style import ATTACK_STYLES, OPEN


def accuracy_figure(found: Mapping[str, Any], title: str = "") -> Figure:
    """One curve for each attack from the clean accuracy at 0 on, with its 95 % intervals.

    Args:
        found: An evaluation, as ``evaluation.json`` holds it, at two radii or more.
        title: What was evaluated.
    """
    clean = next(row for row in found["accuracies"] if row["attack"] == "clean")
    curves: dict[str, list[Mapping[str, Any]]] = {}
    for row in found["accuracies"]:
        if row["attack"] != "clean":
            curves.setdefault(row["attack"], [clean]).append(row)
    unit = 255 if found["norm"] == "L-inf" else 1
    with mpl.rc_context(OPEN):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        for attack, rows in curves.items():
            rows = sorted(rows, key=lambda row: float(row["eps"]))
            radii = [unit * row["eps"] for row in rows]
            color, marker = ATTACK_STYLES[attack]
            low, high = ([100 * row[end] for row in rows] for end in ("low", "high"))
            axes.fill_between(radii, low, high, color=color, alpha=0.15, linewidth=0)
            shares = [100 * row["accuracy"] for row in rows]
            (line,) = axes.plot(radii, shares, color=color, marker=marker, markersize=4)
            line.set_label(rows[-1]["label"])
        axes.set(
            xlabel=f"eps, {found['norm']} [{'1/255' if unit == 255 else 'pixels'}]",
            ylabel="accuracy [%]",
            ylim=(-2, 102),
            xlim=(0, None),
        )
        axes.set_title(fill(title, 72), fontsize=8, parse_math=False)  # a path may hold a $
        axes.legend(frameon=False)
    return figure
