"""Figures of energy landscapes of one run or several runs, at print size.

An attack has the same colour in all of them; runs are styled as in the figures of their training.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from textwrap import fill
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from energy_at.analysis.measure import TIMES, Floats, Landscape
from energy_at.analysis.tables import View, class_means, ks_distance
from energy_at.reporting.describe import NORM_LABELS
from energy_at.reporting.figures import (
    ATTACK_STYLES,
    EPS_UNITS,
    OPEN,
    bins_of,
    entitle,
    legend_height,
    methods_legend,
)

Panels = dict[tuple[str, str], Axes]
Share = Literal["all", "col"]

WIDTH = 7.0  # inches: of the text of a page
NARROW = 5.2  # inches: of a panel alone
HEIGHT = 9.0  # inches: of all panels of a page together, at most
GAP = 0.08  # inches, above and below panels and titles, which would touch at half of it
COLUMNS = 3  # panels of one run
PAPER = OPEN | {"font.size": 8, "axes.titlesize": 8, "legend.fontsize": 8, "axes.linewidth": 0.6}
NATURAL = "#000000"
JOINT = "0.35"  # E(x, y), next to E(x) in the colour of its attack
BAND = (0.25, 0.75)  # quantiles over the images
BAND_LABEL = "band: 25 to 75 % of images"
COUNTED = 12  # classes that have room for the number of their images


@contextmanager
def sheet(width: float, height: float, title: str) -> Iterator[Figure]:
    """A figure of this size in inches, with its title."""
    with mpl.rc_context(PAPER):
        layout = ConstrainedLayoutEngine(h_pad=GAP)
        figure = Figure(figsize=(width, height + 2 * GAP), layout=layout, dpi=300)
        yield figure
        entitle(figure, title)


@contextmanager
def page(view: View, xlabel: str, ylabel: str) -> Iterator[tuple[Figure, Panels]]:
    """A panel for each run and attack: row by row for one run, a column for each of several.

    The panels of a run share their axes: energies are known up to a constant of the network.
    """
    wanted = [(run, attack) for attack in view.labels for run in view.runs]
    alone = 2 if len(wanted) == 4 else min(COLUMNS, len(wanted))
    columns = len(view.runs) if view.has_columns else alone
    rows = -(-len(wanted) // columns)
    share: Share = "col" if view.has_columns else "all"
    width, height = (WIDTH, 1.5) if columns > 1 else (NARROW, 2.2)
    with sheet(width, 0.9 + min(height * rows, HEIGHT), view.title) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).ravel()
        panels = dict(zip(wanted, grid, strict=False))
        for place, ((_, attack), axes) in enumerate(panels.items()):
            axes.set_title(view.labels[attack])
            axes.xaxis.set_major_locator(MaxNLocator(3, min_n_ticks=3))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            if place % columns == 0:
                axes.set_ylabel(ylabel)
            if place + columns >= len(wanted):
                axes.set_xlabel(xlabel)
                axes.tick_params(labelbottom=True)
        for axes in grid[len(wanted) :]:
            axes.remove()
        yield figure, panels
        if view.has_columns:
            for run, axes in zip(view.runs, grid, strict=False):
                axes.set_title(f"{run_title(view, run)}\n{axes.get_title()}")


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend whose rows hold as many handles as fit."""
    room = 3 if figure.get_figwidth() == WIDTH else 2
    figure.legend(handles=handles, loc="outside lower center", ncols=room, frameon=False)


def run_title(view: View, run: str) -> str:
    """The name of a run, in lines that fit above its column."""
    return fill(run, int(12 * WIDTH / len(view.runs)))


def histograms(view: View, *, joint: bool = False) -> Figure:
    """Energies of natural and of adversarial images, a panel for each attack (and run)."""
    name, label = ("joint", "E(x, y)") if joint else ("marginal", "E(x)")
    with page(view, f"{label} [nats]", "images [%]") as (figure, panels):
        for (run, attack), axes in panels.items():
            natural = getattr(view.runs[run].natural, name)
            adversarial = getattr(view.runs[run].attacks[attack], name)
            edges = np.histogram_bin_edges(
                _all_of(view.runs[run], name), bins_of(len(natural))
            ).tolist()
            shares = np.full(len(natural), 100 / len(natural))
            color = ATTACK_STYLES[attack][0]
            axes.hist(adversarial, edges, weights=shares, color=color, alpha=0.55)
            axes.hist(natural, edges, weights=shares, color=NATURAL, histtype="step", linewidth=0.9)
            axes.set_title(f"{view.labels[attack]}, KS {ks_distance(natural, adversarial):.2f}")
        handles = [
            Line2D([], [], color=NATURAL, linewidth=0.9, label="natural"),
            Patch(color="0.6", label="adversarial (in the attack's colour)"),
        ]
        legend_below(figure, handles)
    return figure


def path(view: View) -> Figure:
    """Energies from ``x`` through ``x*``: means and bands, a panel for each attack (and run)."""
    with page(view, "t (x at 0, x* at 1)", "energy [nats]") as (figure, panels):
        for (run, attack), axes in panels.items():
            paths, color = view.runs[run].paths[attack], ATTACK_STYLES[attack][0]
            _band(axes, TIMES, paths.marginal, color=color)
            _band(axes, TIMES, paths.joint, color=JOINT, linestyle="--")
            axes.axvline(1, color="0.5", linewidth=0.6, linestyle=":")
            axes.set_xticks([0, 0.5, 1, 1.5])
        handles = [
            Line2D(
                [],
                [],
                color="0.2",
                label=r"mean $E(x_t)$ (attack's colour), $x_t = x + t\,(x^* - x)$",
            ),
            Line2D([], [], color=JOINT, linestyle="--", label="mean $E(x_t, y)$"),
            Patch(color="0.8", label=BAND_LABEL),
        ]
        legend_below(figure, handles)
    return figure


def delta_vs_eps(view: View, label: str) -> Figure:
    """Delta energies against the radius of an attack: means and bands of the images."""
    unit, unit_name = EPS_UNITS[view.norm]
    styles = _run_styles(view)
    height = 2.6 + (legend_height(styles) if view.has_columns else 0)
    with sheet(WIDTH, height, f"{view.title}; {label}, mean and {BAND_LABEL}") as figure:
        for axes, name in zip(figure.subplots(1, 2), ("marginal", "joint"), strict=True):
            for run, landscape in view.runs.items():
                deltas = getattr(landscape.radii, f"delta_{name}")
                at_zero = np.zeros((len(deltas), 1))  # no radius, no shift
                radii = [0.0, *(unit * landscape.radii.eps)]
                _band(axes, radii, np.concatenate([at_zero, deltas], axis=1), **styles[run])
            axes.axhline(0, color="0.7", linewidth=0.6, zorder=0)
            axes.axvline(unit * view.eps, color="0.5", linewidth=0.6, linestyle=":")
            what = "dE(x)" if name == "marginal" else "dE(x, y)"
            axes.set_xlabel(f"eps, {NORM_LABELS[view.norm]} [{unit_name}] (dotted: of the attacks)")
            axes.set_ylabel(f"{what} [nats]")
        if view.has_columns:
            methods_legend(figure, styles)
    return figure


def classes(view: View) -> Figure:
    """Means over the images of each class, under every attack."""
    rows = {"E(x), E(x*)": "marginal", "dE(x)": "delta_marginal", "dE(x, y)": "delta_joint"}
    with sheet(WIDTH, 6.2, view.title) as figure:
        grid = figure.subplots(3, len(view.runs), squeeze=False, sharex="col")
        for column, (run, landscape) in zip(grid.T, view.runs.items(), strict=True):
            for axes, name in zip(column, rows.values(), strict=True):
                _class_means(axes, landscape, name)
            if view.has_columns:
                column[0].set_title(run_title(view, run))
            _name_classes(column[-1], landscape, room=not view.has_columns)
        for axes, label in zip(grid[:, 0], rows, strict=True):
            axes.set_ylabel(f"mean {label} [nats]")
        handles = [Line2D([], [], linestyle="", marker="_", color=NATURAL, label="natural")]
        for attack, label in view.labels.items():
            color, marker = ATTACK_STYLES[attack]
            handles.append(
                Line2D([], [], linestyle="", marker=marker, markersize=4, color=color, label=label)
            )
        figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    return figure


def _all_of(landscape: Landscape, name: str) -> Floats:
    columns = [getattr(shifts, name) for shifts in landscape.attacks.values()]
    return np.concatenate([getattr(landscape.natural, name), *columns])


def _band(axes: Axes, x: Any, rows: Floats, *, color: str, **style: Any) -> None:
    low, high = np.quantile(rows, BAND, axis=0)
    axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
    axes.plot(x, rows.mean(axis=0), color=color, linewidth=1.3, **style)


def _run_styles(view: View) -> dict[str, dict[str, Any]]:
    """As in the figures of the training, and a marker of its own for each of several runs."""
    if not view.has_columns:
        style = {"color": ATTACK_STYLES["pgd"][0], "marker": "o", "markersize": 3}
        return dict.fromkeys(view.runs, style)
    return {
        run: style | {"marker": marker, "markersize": 4}
        for (run, style), marker in zip(view.styles.items(), cycle("os^DvPX"), strict=False)
    }


def _class_means(axes: Axes, landscape: Landscape, name: str) -> None:
    labels = landscape.natural.label
    n = int(np.max(labels)) + 1
    few = n <= 20
    if name == "marginal":
        means = class_means(landscape.natural.marginal, labels, n)
        axes.hlines(means, np.arange(n) - 0.42, np.arange(n) + 0.42, color=NATURAL, linewidth=1)
    else:
        axes.axhline(0, color="0.7", linewidth=0.6, zorder=0)
    for i, (attack, shifts) in enumerate(landscape.attacks.items()):
        offset = 0.8 * ((i + 0.5) / len(landscape.attacks) - 0.5) if few else 0
        color, marker = ATTACK_STYLES[attack]
        axes.plot(
            np.arange(n) + offset,
            class_means(getattr(shifts, name), labels, n),
            linestyle="",
            marker=marker,
            markersize=3.5 if few else 2,
            color=color,
        )


def _name_classes(axes: Axes, landscape: Landscape, *, room: bool) -> None:
    counts = np.bincount(landscape.natural.label)
    low, high = np.min(counts), np.max(counts)
    axes.set_xlabel(f"class ({low if low == high else f'{low} to {high}'} images each)")
    if len(counts) > 20:
        return
    axes.set_xticks(range(len(counts)))
    if room and len(counts) <= COUNTED:
        axes.set_xticklabels([f"{label}\nn = {n}" for label, n in enumerate(counts)])
        axes.set_xlabel("class, and number of its images")
