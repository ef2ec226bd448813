"""Figures from the rows of ``metrics.csv``; each function returns a matplotlib figure."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from energy_at.overfitting.alarms import Rows
from energy_at.reporting.figures.markers import Mark, alarms_of, mark_alarms
from energy_at.runs.metrics_log import MetricsLog

MOST = 2000  # points of a curve by step: more of them are drawn as bins
WIDTH = 10.5  # of a figure with several panels, in inches

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
LOST = (" (collapsed)", " (not learned)")
OPEN: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
# Colour and marker of each attack: Okabe and Ito's palette, then Tol's.
ATTACK_STYLES: dict[str, tuple[str, str]] = {
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
LINE_STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (7, 2, 1, 2, 1, 2)), (0, (8, 4)))
MARKERS = ("", "o", "s", "^", "D", "v", "P", "X")


def delta_energy_figure(runs: Mapping[str, MetricsLog | Rows], title: str = "") -> Figure:
    """Delta energy on the training set and PGD error on held-out images over training.

    One panel for each run, two side by side, on the same axes: dE(x) and dE(x, y) per step (thin)
    and per epoch (thick) on the right axis, PGD error after each epoch on the left axis
    (arXiv 2505.22486). Triangles are alarms of the sentinel.
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
            _panel(axes, name, MetricsLog.of(rows))
            for axes, (name, rows) in zip(panels, runs.items(), strict=False)
        ]
        _share_limits(twins, columns)
        entitle(figure, title)
        for axes in panels[: len(runs) : columns]:
            axes.set_ylabel("PGD error,\nheld-out images [%]", color=ERROR)
        for twin in _rightmost(twins, columns):
            twin.set_ylabel("delta energy,\ntraining images [nats]", color=DELTA)
        handles = [*panels[0].get_lines()[:1], *twins[0].get_lines()[1::2]]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def methods_figure(methods: Mapping[str, Sequence[MetricsLog | Rows]], title: str = "") -> Figure:
    """All methods on the same axes, over epochs: a thick line for each, thin ones for its seeds.

    From left to right dE(x) and dE(x, y) on the training set, epoch means in nats, and PGD accuracy
    on held-out images. Triangles are alarms of the sentinel.
    """
    if not methods:
        raise ValueError("no run to draw")
    styles = method_styles(list(methods))
    panels = {
        "dE(x), training images [nats]": "train/delta_energy/marginal",
        "dE(x, y), training images [nats]": "train/delta_energy/joint",
        "PGD accuracy, held-out images [%]": "val/acc/pgd",
    }
    logs = {name: [MetricsLog.of(rows) for rows in seeds] for name, seeds in methods.items()}
    with mpl.rc_context(OPEN):
        figure = Figure(figsize=(WIDTH, 3.1 + legend_height(styles)), layout="constrained")
        for axes, (label, key) in zip(figure.subplots(1, 3), panels.items(), strict=True):
            for name, seeds in logs.items():
                method_curves(axes, seeds, key, styles[name])
            mark_alarms(axes, method_alarms(logs, styles))
            axes.set(xlabel="epoch", ylabel=label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.axhline(0, color="0.7", linewidth=0.6, zorder=0)
        methods_legend(figure, styles)
        entitle(figure, title)
    return figure


def method_alarms(
    logs: Mapping[str, Sequence[MetricsLog]], styles: Mapping[str, dict[str, Any]]
) -> list[Mark]:
    """Of all runs, in the colours of their methods."""
    return [
        mark
        for name, seeds in logs.items()
        for log in seeds
        for mark in alarms_of(log, color=styles[name]["color"])
    ]


def entitle(figure: Figure, title: str) -> None:
    """The setting, above all panels; nothing without one."""
    if title:
        figure.suptitle(fill(title, int(15 * figure.get_figwidth())), fontsize="medium")


def methods_legend(figure: Figure, styles: Mapping[str, dict[str, Any]]) -> None:
    """Every method in its style, below all panels."""
    handles = [Line2D([], [], **style) for style in styles.values()]
    columns = _legend_columns(styles)
    figure.legend(handles, list(styles), loc="outside lower center", ncols=columns, frameon=False)


def legend_height(styles: Mapping[str, Any]) -> float:
    """Of the legend of these methods, in inches."""
    return 0.18 * -(-len(styles) // _legend_columns(styles))


def _legend_columns(styles: Mapping[str, Any]) -> int:
    return max(1, min(4, 130 // (max(map(len, styles)) + 8)))


def method_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour by the regularizer, the same in every figure; dashes, then markers, by all else."""
    variants: dict[tuple[str, ...], int] = {}
    styles = {}
    for name in names:
        plain, mark = _without_mark(name)
        method, *settings = plain.split(", ")
        base, *added = method.split(" + ")
        variant = (base, *added[1:], *settings, mark)
        round_, dash = divmod(variants.setdefault(variant, len(variants)), len(LINE_STYLES))
        styles[name] = {
            "color": METHOD_COLORS.get(added[0] if added else "", "#999999"),
            "linestyle": LINE_STYLES[dash],
            "marker": MARKERS[round_ % len(MARKERS)],
        }
    return styles


def _without_mark(name: str) -> tuple[str, str]:
    """The name of a method, and how runs of it are marked that are no result."""
    mark = next((mark for mark in LOST if name.endswith(mark)), "")
    return name.removesuffix(mark), mark


def method_curves(axes: Axes, seeds: Sequence[MetricsLog], key: str, style: dict[str, Any]) -> None:
    """Epoch means: thick for the mean of the seeds, thin for each of them; shares in percent."""
    scale = percent(key)
    curves = [{e: scale * v for e, v in log[key].epoch_means().items()} for log in seeds]
    if len(curves) > 1:
        for curve in curves:
            thin = {**style, "marker": ""}
            axes.plot(list(curve), list(curve.values()), linewidth=0.7, alpha=0.45, **thin)
    epochs = sorted(set.intersection(*map(set, curves)))
    means = [float(np.mean([curve[epoch] for curve in curves])) for epoch in epochs]
    shown = style if len(epochs) > 1 else {**style, "marker": style["marker"] or "o"}
    axes.plot(epochs, means, linewidth=1.8, markersize=4, **shown)


def percent(key: str) -> int:
    """100 for a share that is shown in percent, 1 for anything else."""
    return 100 if "/acc/" in key or key.endswith("_share") else 1


def save(figure: Figure, stem: Path) -> list[Path]:
    """Writes ``stem.png`` and ``stem.pdf``."""
    paths = [stem.with_name(stem.name + suffix) for suffix in (".png", ".pdf")]
    figure.savefig(paths[0], dpi=160, metadata={"Software": None})
    with mpl.rc_context({"pdf.fonttype": 42}):  # many publishers take no Type 3 fonts
        figure.savefig(paths[1], metadata={"CreationDate": None})
    return paths


def svg(figure: Figure) -> bytes:
    """The figure for a web page, the same bytes every time."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "energy_at", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(rb' d="[^"]*"', _to_hundredths, buffer.getvalue())


def _to_hundredths(path: re.Match[bytes]) -> bytes:
    """A hundredth of a point cannot be seen; without more the file has half its size."""
    return re.sub(rb"(\.\d\d)\d+", rb"\1", path.group())


def _panel(axes: Axes, name: str, log: MetricsLog) -> Axes:
    twin, steps_per_epoch = axes.twinx(), log.steps_per_epoch
    validated = log["val/acc/pgd"]
    axes.plot(
        validated.steps / steps_per_epoch, 100 * (1 - validated.values),
        color=ERROR, marker="o", markersize=3, label="PGD error (held-out)",
    )  # fmt: skip
    _curve(twin, log, "train/delta_energy/marginal", DELTA, "dE(x) (training)")
    _curve(twin, log, "train/delta_energy/joint", JOINT, "dE(x, y) (training)")
    twin.axhline(0, color="0.7", linewidth=0.6, zorder=0)
    mark_alarms(axes, alarms_of(log))
    axes.set(title=name, xlabel="epoch", ylim=(-3, 103))
    axes.set_zorder(twin.get_zorder() + 1)
    axes.patch.set_visible(False)
    return twin


def _curve(axes: Axes, log: MetricsLog, key: str, color: str, label: str) -> None:
    steps = log[key].binned(MOST)
    epochs = steps.steps / log.steps_per_epoch
    axes.plot(epochs, steps.mean, color=color, linewidth=0.5, alpha=0.3)
    if len(log[key]) > MOST:
        axes.fill_between(epochs, steps.low, steps.high, color=color, alpha=0.15, linewidth=0)
    means = log[key].epoch_means()
    axes.plot(list(means), list(means.values()), color=color, label=label)


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
    for twin in twins:
        twin.set_ylim(min(low, 0) - margin, max(high, 0) + margin)
    shown = _rightmost(twins, columns)
    for twin in twins:
        twin.tick_params(labelright=twin in shown)
