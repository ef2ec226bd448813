"""Page layout of the figures of energies: runs and attacks, colours, panels."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from textwrap import fill
from typing import Literal

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from energy_at.analysis.measure import Landscape
from energy_at.reporting.figures import OPEN, Style, entitle

Panels = dict[tuple[str, str], Axes]
Share = Literal["all", "col"]

WIDTH = 7.0  # inches: of the text of a page
NARROW = 5.2  # inches: of a panel alone
HEIGHT = 9.0  # inches: of all panels of a page together, at most
COLUMNS = 3  # panels of one run
PAPER = OPEN | {"font.size": 8, "axes.titlesize": 8, "legend.fontsize": 8, "axes.linewidth": 0.6}
NATURAL = "#000000"


@dataclass(frozen=True)
class View:
    """Runs and attacks of a figure or table.

    Attributes:
        runs: Landscapes by the name of the run, all of the same attacks.
        labels: The attacks, as they are printed.
        title: The setting.
        norm: ``linf`` or ``l2``.
        eps: Radius of the attacks, in units of the pixel range.
        styles: Of the lines of several runs, by their names.
    """

    runs: Mapping[str, Landscape]
    labels: Mapping[str, str]
    title: str
    norm: str
    eps: float
    styles: Mapping[str, Style] = field(default_factory=dict)

    @property
    def has_columns(self) -> bool:
        """Whether there are several runs: each has a column."""
        return len(self.runs) > 1

    def wrapped(self, run: str) -> str:
        """The name of a run, in lines that fit above its column."""
        return fill(run, int(12 * WIDTH / len(self.runs)))


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
    with mpl.rc_context(PAPER):
        width, height = (WIDTH, 1.5) if columns > 1 else (NARROW, 2.2)
        size = (width, 0.9 + min(height * rows, HEIGHT))
        figure = Figure(figsize=size, layout="constrained", dpi=300)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).ravel()
        panels = dict(zip(wanted, grid, strict=False))
        for place, (_, attack) in enumerate(wanted):
            axes = grid[place]
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
                axes.set_title(f"{view.wrapped(run)}\n{axes.get_title()}")
        entitle(figure, view.title)


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend whose rows hold as many handles as fit."""
    room = 3 if figure.get_figwidth() == WIDTH else 2
    figure.legend(handles=handles, loc="outside lower center", ncols=room, frameon=False)
