"""Each image in the plane of its energies, ``E(x)`` and ``E(x, y)`` (arXiv 2505.22486)."""

from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from energy_at.analysis.figures import NARROW, WIDTH, legend_below, run_title, sheet
from energy_at.analysis.measure import Floats, Natural, Shifts
from energy_at.analysis.tables import View

ARROWS = 500  # of a panel at most
SEED = 0  # draws them
KINDS = ("normal", "AAE")
DIAGONAL: dict[str, Any] = {"color": "0.4", "linestyle": "--", "linewidth": 0.8}
# The yellow end of viridis cannot be seen on white.
COLORS = LinearSegmentedColormap.from_list(
    "viridis_dark", mpl.colormaps["viridis"](np.linspace(0, 0.88, 64))
)

Indices = NDArray[np.int64]
Draw = Callable[[Axes, Natural, Shifts, Indices, Normalize], None]


def scatter(view: View, attack: str) -> Figure:
    """Adversarial images in the colour of their shift norm, over natural ones in grey."""
    return _plane(view, attack, _points, "natural (grey) and adversarial")


def quiver(view: View, attack: str) -> Figure:
    """An arrow for each image from natural to adversarial, in the colour of its shift norm."""
    return _plane(view, attack, _arrows, "from natural to adversarial")


def _plane(view: View, attack: str, draw: Draw, what: str) -> Figure:
    shifts = {run: landscape.attacks[attack] for run, landscape in view.runs.items()}
    kinds = [kind for kind in KINDS if any(len(_members(s, kind)) for s in shifts.values())]
    cells = [(kind, run) for kind in kinds for run in view.runs]
    columns = len(view.runs) if view.has_columns else len(kinds)
    rows = len(cells) // columns
    # The colour scale ends at the 99th percentile: a few images may lie far beyond.
    highest = np.quantile(np.concatenate([s.shift_norm for s in shifts.values()]), 0.99)
    norm = Normalize(0, max(float(highest), 1e-6))
    width = WIDTH if columns > 1 else NARROW
    title = f"{view.title}; {view.labels[attack]}, {what}"
    with sheet(width, 1.0 + 2.3 * rows, title) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, (kind, run) in zip(grid.ravel(), cells, strict=True):
            natural, members = view.runs[run].natural, _members(shifts[run], kind)
            drawn = _sample(members) if draw is _arrows else members
            _frame(axes, natural, shifts[run])
            draw(axes, natural, shifts[run], drawn, norm)
            text = _panel_title(kind, len(drawn), len(members), alone=len(kinds) == 1)
            above = view.has_columns and kind == kinds[0]
            axes.set_title(f"{run_title(view, run)}\n{text}" if above else text)
        for axes in grid[-1]:
            axes.set_xlabel("E(x) [nats]")
        for axes in grid[:, 0]:
            axes.set_ylabel("E(x, y) [nats]")
        figure.colorbar(
            ScalarMappable(norm, COLORS),
            ax=grid.ravel().tolist(),
            extend="max",
            label="shift norm [nats]",
            fraction=0.04,
            pad=0.01,
        )
        legend_below(figure, [Line2D([], [], label=_diagonal_label(grid), **DIAGONAL)])
    return figure


def _points(axes: Axes, natural: Natural, shifts: Shifts, drawn: Indices, norm: Normalize) -> None:
    axes.scatter(
        natural.marginal[drawn],
        natural.joint[drawn],
        s=3,
        color="0.75",
        linewidths=0,
        rasterized=True,
    )
    # the largest shifts on top, whatever the order of the images
    order = drawn[np.argsort(shifts.shift_norm[drawn], kind="stable")]
    axes.scatter(
        shifts.marginal[order],
        shifts.joint[order],
        s=4,
        c=shifts.shift_norm[order],
        cmap=COLORS,
        norm=norm,
        linewidths=0,
        rasterized=True,
    )


def _arrows(axes: Axes, natural: Natural, shifts: Shifts, drawn: Indices, norm: Normalize) -> None:
    axes.quiver(
        natural.marginal[drawn],
        natural.joint[drawn],
        -shifts.delta_marginal[drawn],
        -shifts.delta_joint[drawn],
        shifts.shift_norm[drawn],
        cmap=COLORS,
        norm=norm,
        angles="xy",
        scale_units="xy",
        scale=1,
        units="inches",
        width=0.011,
        headwidth=4,
        headlength=5,
    )


def _frame(axes: Axes, natural: Natural, shifts: Shifts) -> None:
    """The limits of all images of the run, wide enough to see where the loss is 0."""
    low, high = _widened(np.concatenate([natural.marginal, shifts.marginal]))
    bottom, top = _widened(np.concatenate([natural.joint, shifts.joint]))
    reach = low + 0.6 * (high - low)
    if bottom - (top - bottom) < reach < bottom:  # else it would take most of the panel
        bottom = reach
    axes.set(xlim=(low, high), ylim=(bottom, top))
    axes.axline((0, 0), slope=1, zorder=0, **DIAGONAL)
    axes.locator_params(nbins=4)


def _diagonal_label(grid: NDArray[Any]) -> str:
    hidden = all(axes.get_xlim()[1] < axes.get_ylim()[0] for axes in grid.ravel())
    return "zero loss, E(x, y) = E(x)" + (", below the panel" if hidden else "")


def _widened(values: Floats) -> tuple[float, float]:
    margin = 0.04 * max(float(np.ptp(values)), 1e-6)
    return float(np.min(values)) - margin, float(np.max(values)) + margin


def _members(shifts: Shifts, kind: str) -> Indices:
    return np.flatnonzero(shifts.is_abnormal if kind == "AAE" else ~shifts.is_abnormal)


def _panel_title(kind: str, drawn: int, members: int, *, alone: bool) -> str:
    if drawn < members:
        return f"{kind}: {drawn} of {members:,} (drawn, seed {SEED})"
    other = next(other for other in KINDS if other != kind)
    return f"{kind}: {members:,}" + (f" (no {other})" if alone else "")


def _sample(members: Indices) -> Indices:
    """At most ``ARROWS`` of them, drawn with ``SEED``, in their order."""
    if len(members) <= ARROWS:
        return members
    return np.sort(np.random.default_rng(SEED).choice(members, ARROWS, replace=False))
