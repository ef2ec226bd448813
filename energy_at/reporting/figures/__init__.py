"""Figures of trainings and their results; what they share: style, legends, alarms and files."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from energy_at.core.files import replacing
from energy_at.reporting.describe import ROBUST, MethodLabel

WIDTH = 10.5  # inches: of a figure with several panels
TITLE_SIZES = (9.0, 8.0, 7.0, 6.0)  # points
DOTS = " \N{HORIZONTAL ELLIPSIS}"
OPEN: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}

Style = dict[str, Any]  # colour, dashes and marker of a line
# Okabe and Ito's palette: safe for colour-blind readers
METHOD_COLORS = {
    "": "#000000",
    "DER": "#D55E00",
    "GradAlign": "#0072B2",
    "ELLE": "#009E73",
    "ELLE-A": "#56B4E9",
    "AAER": "#CC79A7",
    "AWP": "#E69F00",
}
ATTACK_STYLES = {  # colour and marker in every figure: Okabe and Ito's palette, then Tol's
    "fgsm": ("#E69F00", "o"),
    "rs_fgsm": ("#F0E442", "o"),
    "pgd": ("#0072B2", "s"),
    "trades": ("#009E73", "^"),
    "targeted": ("#56B4E9", "v"),
    "cw": ("#CC79A7", "D"),
    "apgd_ce": ("#332288", "P"),
    "apgd_dlr": ("#882255", "X"),
    "apgd_t": ("#44AA99", "p"),
    "fab": ("#8B5A2B", "<"),
    "fab_t": ("#DDCC77", ">"),
    "square": ("#999999", "h"),
    "autoattack": ("#D55E00", "*"),
}
EPS_UNITS = {"linf": (255, "1/255"), "l2": (1, "pixel range")}  # factor and name, on an axis
SEQUENTIAL = ("viridis", 0.15, 0.83)  # colour map of swept numbers: not black, not too light
SWEPT = 2  # values from which a number has colours of its own
LINE_STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (7, 2, 1, 2, 1, 2)), (0, (8, 4)))
MARKERS = ("", "o", "s", "^", "D", "v", "P", "X")

SPIKE = 8  # times the usual size of a value
ALARM = "0.25"  # colour of a triangle that belongs to no curve
LABEL_DISTANCE = 0.08  # of the width of a panel, between labels
LANE = 13  # points between alarms of different kinds
MARK_STYLES: dict[str, Style] = {  # what a legend says of the marks that belong to no method
    "one seed": {"color": "0.4", "linewidth": 0.7},
    "range of steps": {"color": "0.4", "linewidth": 5, "alpha": 0.25},
    "mean of neighbouring steps": {"color": "0.4", "linewidth": 0.5},
    "one step": {"color": "0.4", "linewidth": 0.5},
    "mean of an epoch": {"color": "0.4", "linewidth": 1.8},
    "collapsed or not robust": {"color": "0.4", "linestyle": "", "marker": "x"},
    "range over seeds": {"color": "0.4", "linestyle": "", "marker": "|", "markersize": 9},
    "onset of CO": {"color": "0.4", "linewidth": 0.9, "linestyle": "--"},
    "onset of RO": {"color": "0.4", "linewidth": 0.9, "linestyle": ":"},
    "alarm of the sentinel": {"color": ALARM, "linestyle": "", "marker": "v", "markersize": 4},
    "alarm, no loss of robustness": {
        "color": ALARM, "linestyle": "", "marker": "v", "markersize": 4, "markerfacecolor": "none"
    },
}  # fmt: skip


def method_styles(labels: Sequence[MethodLabel]) -> dict[MethodLabel, Style]:
    """Colour by regularizer, the same in every figure, or by a swept number; dashes by the rest.

    Methods that differ only in a number, of which there are ``SWEPT`` values or more, have the
    colours of a sequential map, in the order of the number.
    """
    key = _swept(labels)
    numbers = sorted({n for label in labels if key and (n := label.number(key)) is not None})
    families: dict[MethodLabel, int] = {}
    variants: dict[tuple[MethodLabel, tuple[str, ...]], int] = {}
    styles = {}
    for label in labels:
        number = label.number(key) if key else None
        if key and number is not None:
            name, first, last = SEQUENTIAL
            place = numbers.index(number) / (len(numbers) - 1)
            color = to_hex(mpl.colormaps[name](first + place * (last - first)))
            variant = families.setdefault(label.without(key), len(families))
        else:
            first_added, *others = label.added or ("",)
            color = METHOD_COLORS.get(first_added, "#999999")
            status = label.status.replace(ROBUST, "")
            plain = replace(label, regularizers=(), awp=False, status=status)
            variant = variants.setdefault((plain, tuple(others)), len(variants))
        round_, dash = divmod(variant, len(LINE_STYLES))
        styles[label] = {
            "color": color,
            "linestyle": LINE_STYLES[dash],
            "marker": MARKERS[round_ % len(MARKERS)],
        }
    return styles


def _swept(labels: Sequence[MethodLabel]) -> str | None:
    """The first key of which some method has ``SWEPT`` values, all of them numbers.

    A regularizer of weight 0 has the label of its base method, and counts as a value.
    """
    for key in dict.fromkeys(key for label in labels for key, _ in label.settings):
        values: dict[MethodLabel, set[float | None]] = {}
        for label in labels:
            if key in dict(label.settings):
                family = replace(label.without(key), status="")
                has_zero = key.startswith("reg.") and replace(family, regularizers=()) in labels
                values.setdefault(family, {0.0} if has_zero else set()).add(label.number(key))
        if all(None not in v for v in values.values()) and max(map(len, values.values())) >= SWEPT:
            return key
    return None


@contextmanager
def subplots(
    rows: int,
    columns: int,
    size: tuple[float, float],
    title: str = "",
    styles: Mapping[Any, Style] | None = None,
    *,
    sharex: bool = False,
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure and its panels, row by row; a title above, and a legend of the styles below."""
    width, height = size
    with mpl.rc_context(OPEN):
        height += legend_height(styles) if styles else 0
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, list(figure.subplots(rows, columns, squeeze=False, sharex=sharex).flat)
        if styles:
            methods_legend(figure, styles)
        entitle(figure, title)


def entitle(figure: Figure, title: str) -> None:
    """A title of at most two lines, in the largest font in which they hold all of it."""
    for size in TITLE_SIZES if title else ():
        text = two_lines(title, int(125 / size * figure.get_figwidth()))
        if not text.endswith(DOTS):
            break
    if title:
        figure.suptitle(text, fontsize=size, parse_math=False)  # a path may hold a $


def two_lines(text: str, width: int) -> str:
    """The text in at most two lines of ``width`` characters; what does not fit ends in dots."""
    return fill(text, width, max_lines=2, placeholder=DOTS)


def share_y(panels: Sequence[Axes]) -> None:
    """The same y range, with a margin, for panels that are compared; to call after the curves."""
    limits = [axes.get_ylim() for axes in panels]
    low, high = min(low for low, _ in limits), max(high for _, high in limits)
    margin = 0.04 * (high - low)
    for axes in panels:
        axes.set_ylim(low - margin, high + margin)


def bins_of(n: int) -> int:
    """Bins of a histogram of ``n`` values, by Rice's rule: 8 to 40."""
    return int(np.clip(round(2 * n ** (1 / 3)), 8, 40))


def show_spikes(axes: Axes, curves: Sequence[Any]) -> bool:
    """A symmetric logarithmic axis where few values are far beyond all others, else a linear one.

    Beyond the 98th percentile of the absolute values, if the largest is ``SPIKE`` times as large:
    the curve stays visible, and no spike leaves the panel. Returns whether the axis is logarithmic.
    """
    sizes = np.abs(np.concatenate([np.asarray(curve, float) for curve in curves]))
    sizes = sizes[np.isfinite(sizes)]
    usual = float(np.quantile(sizes, 0.98)) if len(sizes) else 0.0
    if not usual or sizes.max() < SPIKE * usual:
        return False
    unit = 10.0 ** np.floor(np.log10(usual))
    linear = float(np.ceil(usual / unit) * unit)
    powers = 10.0 ** np.arange(np.ceil(np.log10(2 * linear)), np.ceil(np.log10(sizes.max())) + 1)
    axes.set_yscale("symlog", linthresh=linear, linscale=2)
    ticks = np.array([linear, *powers])
    axes.yaxis.set_major_locator(FixedLocator([*-ticks[::-1], 0.0, *ticks]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    return True


def methods_legend(figure: Figure, styles: Mapping[Any, Style]) -> None:
    handles = [Line2D([], [], **style) for style in styles.values()]
    names, columns = list(map(str, styles)), _legend_columns(styles)
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)


def legend_height(styles: Mapping[Any, Any]) -> float:
    return 0.18 * -(-len(styles) // _legend_columns(styles))


def _legend_columns(styles: Mapping[Any, Any]) -> int:
    return max(1, min(4, 130 // (max(len(str(name)) for name in styles) + 8)))


@dataclass(frozen=True)
class Mark:
    """``CO`` or ``RO``, its place on the horizontal axis, and the colour of the run."""

    kind: str
    where: float
    color: str = ALARM
    label: str = ""  # the kind by default
    is_followed: bool = True  # an alarm, by a loss of robustness


def mark_alarms(axes: Axes, alarms: Sequence[Mark], *, named: bool = True) -> None:
    """A triangle for each alarm, each kind in a lane of its own; to call after the curves.

    It is open if no loss of robustness followed. Labels are left out unless ``named``.
    """
    # curves and the line of an onset at the same step end behind the letters, if there are any
    behind = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    font: Any = {"va": "top", "fontsize": "xx-small", "linespacing": 0.9, "annotation_clip": False}
    for lane, kind in enumerate(sorted({mark.kind for mark in alarms})):
        for mark, label in _labelled(axes, [mark for mark in alarms if mark.kind == kind]):
            label *= named
            sign = "\N{BLACK DOWN-POINTING TRIANGLE}"
            if not mark.is_followed:
                sign = "\N{WHITE DOWN-POINTING TRIANGLE}"
            text = f"{label}\n{sign}"
            box = {"bbox": behind} if label else {}
            _write_at_top(axes, text, mark, -1 - LANE * lane, **font, **box)


def mark_onsets(axes: Axes, onsets: Sequence[Mark], *, named: bool = True) -> None:
    """A vertical line for each onset of CO (dashed) or RO (dotted); to call after the curves.

    Labels are left out unless ``named``.
    """
    for mark, label in _labelled(axes, onsets):
        style = MARK_STYLES[f"onset of {mark.kind}"] | {"color": mark.color}
        axes.axvline(mark.where, zorder=1, **style)
        _write_at_top(axes, label * named, mark, 2, va="bottom", fontsize="x-small")


def _write_at_top(axes: Axes, text: str, mark: Mark, points: float, **font: Any) -> None:
    """Text above (points > 0) or below the upper edge of a panel, at a mark, in its colour."""
    axes.annotate(
        text,
        (mark.where, 1.0),
        (0, points),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="center",
        color=mark.color,
        **font,
    )


def _labelled(axes: Axes, marks: Sequence[Mark]) -> Iterator[tuple[Mark, str]]:
    """Marks from left to right; of those close to each other only the first has a label."""
    distance = LABEL_DISTANCE * float(np.diff(axes.get_xlim())[0])
    last = -np.inf
    for mark in sorted(marks, key=lambda mark: mark.where):
        free = mark.where - last > distance
        last = mark.where if free else last
        yield mark, (mark.label or mark.kind) if free else ""


def save(figure: Figure, stem: Path) -> list[Path]:
    """Writes the figure as PNG and PDF, each of which is replaced as a whole."""
    options: dict[str, dict[str, Any]] = {
        "png": {"dpi": 160, "metadata": {"Software": None}},
        "pdf": {"metadata": {"CreationDate": None}},
    }
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in options]
    with mpl.rc_context({"pdf.fonttype": 42}):  # many publishers take no Type 3 fonts
        for path, (kind, own) in zip(paths, options.items(), strict=True):
            with replacing(path) as part:
                figure.savefig(part, format=kind, **own)
            figure.set_layout_engine(
                None
            )  # the others keep the places of the first, in half the time
    return paths


def svg(figure: Figure) -> bytes:
    """The figure for a web page, the same bytes every time."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "energy_at", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    # a hundredth of a point cannot be seen; without more digits the file has half its size
    return re.sub(
        rb' d="[^"]*"', lambda d: re.sub(rb"(\.\d\d)\d+", rb"\1", d.group()), buffer.getvalue()
    )
