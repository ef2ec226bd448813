"""What a trained network does: robust accuracy against eps, and pictures of its samples."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL.Image import Image, Resampling, fromarray

from energy_at.reporting.describe import NORM_LABELS
from energy_at.reporting.figures import (
    ATTACK_STYLES,
    EPS_UNITS,
    Style,
    bins_of,
    entitle,
    subplots,
)
from energy_at.reporting.tables import grouped

START_COLORS = {
    "noise": "#000000",
    "class_gaussian": "#0072B2",
    "class_pca": "#009E73",
    "local_pca": "#D55E00",
    "image": "#CC79A7",
}
SAMPLED, REAL = "#D55E00", "#0072B2"
ROWS, COLUMNS = 25, 60  # of images that a page of many classes holds
LINES = {"none": "--", "class_energy": "-", "class_stop": ":"}
VARIETY = "variety: L2 distance within a class [pixel range]"
TRADEOFFS = (  # two keys of scores, and the labels of their axes
    ("variety", "fid", VARIETY, "FID (less is better)"),
    ("recall", "precision", "recall (variety)", "precision (quality)"),
    ("variety", "classifier_accuracy", VARIETY, "classifier accuracy (share)"),  # without features
)
CONTROLS: dict[str, Style] = {  # sets without sampling
    "start alone": {"marker": "D", "markerfacecolor": "none", "markersize": 6, "linestyle": ""},
    "held-out images": {"marker": "*", "color": "#0072B2", "markersize": 9, "linestyle": ""},
}
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]


def accuracy_figure(found: Mapping[str, Any], title: str = "") -> Figure:
    """One curve for each attack from the clean accuracy at 0 on, with its 95 % intervals.

    Args:
        found: An evaluation, as ``evaluation.json`` holds it, at two radii or more.
        title: Written above the panel.
    """
    curves = grouped(found["accuracies"], lambda row: row["attack"])
    unit, unit_name = EPS_UNITS[found["norm"]]
    with subplots(1, 1, (5.2, 3.4)) as (figure, (axes,)):
        clean = curves.pop("clean")
        for attack, rows in curves.items():
            rows = sorted([*clean, *rows], key=lambda row: float(row["eps"]))
            radii = [unit * row["eps"] for row in rows]
            color, marker = ATTACK_STYLES.get(attack, ("0.4", "d"))  # of another library
            low, high, shares = (
                [100 * row[k] for row in rows] for k in ("low", "high", "accuracy")
            )
            axes.fill_between(radii, low, high, color=color, alpha=0.15, linewidth=0)
            label = rows[-1]["label"]
            axes.plot(radii, shares, color=color, marker=marker, markersize=4, label=label)
        axes.set(
            xlabel=f"eps, {NORM_LABELS[found['norm']]} [{unit_name}]",
            ylabel="accuracy [%]",
            ylim=(-2, 102),
            xlim=(0, None),
        )
        handles, labels = axes.get_legend_handles_labels()
        names = [*labels, "95 % interval (Wilson)"]
        axes.legend([*handles, Patch(color="0.8")], names, frameon=False)
        entitle(figure, title)
    return figure


def grid(
    images: Bytes,
    labels: NDArray[np.int64],
    names: Sequence[str],
    per_class: int,
    title: str = "",
) -> Figure:
    """The first images of every class, a row for each; many classes stand in blocks side by side.

    Args:
        images: (n, height, width, channels).
        labels: Their classes.
        names: Of the classes.
        per_class: Columns; fewer if the classes have fewer samples, or the page no room.
        title: Written above, with the number of images that are shown.
    """
    blocks = -(-len(names) // ROWS)
    room = per_class if blocks == 1 else min(per_class, max(1, COLUMNS // blocks))
    rows = [images[labels == label][:room] for label in range(len(names))]
    columns = max(1, *map(len, rows))
    height = -(-len(names) // blocks)
    inches = min(0.5, 7.0 / columns) if blocks == 1 else 0.3
    with mpl.rc_context({"font.size": 8 if blocks == 1 else 6}):
        size = (blocks * (inches * columns + (1.0 if blocks == 1 else 0.7)), inches * height + 0.5)
        figure = Figure(figsize=size, layout="constrained")
        for i, axes in enumerate(figure.subplots(1, blocks, squeeze=False)[0]):
            part = slice(i * height, (i + 1) * height)
            _draw(axes, _mosaic(rows[part], (height, columns, *images.shape[1:])))
            places = [(row + 0.5) * (images.shape[1] + 1) for row in range(len(names[part]))]
            axes.set_yticks(places, names[part])
            axes.tick_params(length=0)
        shown = f"{sum(map(len, rows)):,} of {len(images):,} shown"
        entitle(figure, f"{shown}: {title}" if title else shown)  # the end of a long one is cut
    return figure


def class_grid(images: Bytes) -> Image:
    """Images of one class in rows of ten, each at least 64 pixels wide; no axes.

    Args:
        images: (n, height, width, channels).
    """
    columns = min(10, len(images))
    rows = [images[i : i + columns] for i in range(0, len(images), columns)]
    mosaic = _mosaic(rows, (len(rows), columns, *images.shape[1:]))
    found = picture(mosaic)
    scale = -(-64 // images.shape[2])
    return found.resize((scale * found.width, scale * found.height), Resampling.NEAREST)


def picture(pixels: Bytes) -> Image:
    """An image (height, width, channels) as it is."""
    return fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def nearest_figure(pairs: Sequence[tuple[Bytes, Bytes, float]], title: str) -> Figure:
    columns = len(pairs)
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(0.75 * columns + 0.6, 2.3), layout="constrained")
        axes = figure.subplots(2, columns, squeeze=False)
        for i, (ours, theirs, distance) in enumerate(pairs):
            for line, image in zip(axes[:, i], (ours, theirs), strict=True):
                _draw(line, image)
                line.set_yticks([])
            axes[1, i].set_xlabel(f"{distance:.2f}")
        axes[0, 0].set_ylabel("sample")
        axes[1, 0].set_ylabel("nearest\ntraining image")
        figure.supxlabel("L2 distance [pixel range]", fontsize="medium")
        entitle(figure, title)
    return figure


def trajectories_figure(
    rows: Sequence[tuple[str, Sequence[int], Bytes, Sequence[float]]], title: str
) -> Figure:
    """Chains from start to end, a row for each, with step and ``E(x, y)`` under each image.

    Args:
        rows: Of each chain the class, the steps before each frame, the frames (frames, height,
            width, channels), and their energies in nats.
        title: Written above.
    """
    strips = [
        (
            name,
            [f"step {n}\n{energy:+z.2f}" for n, energy in zip(steps, energies, strict=True)],
            frames,
        )
        for name, steps, frames, energies in rows
    ]
    return _strips(strips, f"{title}; under each image: steps and E(x, y) [nats]")


def interpolation_figure(
    names: tuple[str, str],
    shares: Sequence[float],
    frames: Bytes,
    energies: Sequence[Sequence[float]],
    title: str,
) -> Figure:
    """Images between two classes side by side, with their energies under both classes.

    Args:
        names: Of the classes.
        shares: Of the second class in each image.
        frames: (images, height, width, channels).
        energies: ``E(x, y)`` under the first and under the second class, in nats.
        title: Written above.
    """
    texts = [
        f"{100 * share:.0f} %\n{first:+z.2f}\n{second:+z.2f}"
        for share, first, second in zip(shares, *energies, strict=True)
    ]
    under = f"share of {names[1]}, E(x, {names[0]}), E(x, {names[1]}) [nats]"
    return _strips([("", texts, frames)], f"{title}; under each image: {under}")


def _strips(rows: Sequence[tuple[str, Sequence[str], Bytes]], title: str) -> Figure:
    """Rows of images, each with a name before it and a text under each image."""
    columns, lines = len(rows[0][1]), rows[0][1][0].count("\n")
    with mpl.rc_context({"font.size": 7}):
        size = (0.75 * columns + 0.8, (0.75 + 0.3 * lines) * len(rows) + 0.5)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for line, (name, texts, frames) in zip(grid, rows, strict=True):
            line[0].set_ylabel(name)
            for axes, text, frame in zip(line, texts, frames, strict=True):
                _draw(axes, frame)
                axes.set_yticks([])
                axes.set_xlabel(text)
        entitle(figure, title)
    return figure


def distributions_figure(
    distances: Mapping[str, Floats], energies: Mapping[str, Floats], symbol: str, title: str
) -> Figure:
    """Distances to the nearest training image (L2, in pixels) and energies (nats) by set."""
    with subplots(1, 2, (8.4, 3.0), title) as (figure, (left, right)):
        near = "L2 distance to the nearest training image"
        _histograms(left, distances, near, "pixel range")
        _histograms(right, energies, symbol, "nats")
    return figure


def tradeoff_figure(
    curves: Mapping[tuple[str, ...], Sequence[Mapping[str, float]]],
    title: str,
    controls: Sequence[tuple[str, str, Mapping[str, float | None]]] = (),
) -> Figure | None:
    """Quality against variety: one curve for each start and guidance, a point for each job.

    Args:
        curves: By start, guidance, and settings in which the samplings differ; points hold
            ``steps`` and scores. A panel needs two of them: FID, precision and recall, or without
            features the accuracy of the classifier.
        title: The setting.
        controls: Sets without sampling: the name, as in ``CONTROLS``, start, and scores.

    Returns:
        The figure; ``None`` if the samplings have no two scores to draw.
    """
    every = [point for curve in curves.values() for point in curve]
    drawn = [
        panel
        for panel in TRADEOFFS
        if every and all(point.get(key) is not None for point in every for key in panel[:2])
    ][:2]
    if not drawn:
        return None
    styles: dict[str, Style] = {
        ", ".join(name): {
            "color": START_COLORS.get(name[0], "#999999"),
            "linestyle": LINES.get(name[1], "-."),
            "marker": "o",
            "markersize": 3.5,
        }
        for name in curves
    }
    marked = [(name, start, scores) for name, start, scores in controls if name in CONTROLS]
    legend = styles | {name: {"color": "0.4"} | CONTROLS[name] for name, *_ in marked}
    with subplots(1, len(drawn), (4.7 * len(drawn), 3.7), title, legend) as (figure, grid):
        for axes, (x, y, xlabel, ylabel) in zip(grid, drawn, strict=True):
            for name, start, scores in marked:
                horizontal, vertical = scores.get(x), scores.get(y)
                if horizontal is not None and vertical is not None:
                    own: Style = {"color": START_COLORS.get(start, "#999999")} | CONTROLS[name]
                    axes.plot([horizontal], [vertical], **own)
            for points, style in zip(curves.values(), styles.values(), strict=True):
                axes.plot([point[x] for point in points], [point[y] for point in points], **style)
                for point in points:
                    steps, place = f"{point['steps']:g}", (point[x], point[y])
                    axes.annotate(steps, place, (2, 3), textcoords="offset points", fontsize=6)
            axes.set(xlabel=xlabel, ylabel=ylabel)
            if y == "fid":
                axes.set_yscale("log")  # starts differ by orders of magnitude
            elif y == "classifier_accuracy":
                axes.set_ylim(-0.03, 1.03)
        grid[0].annotate(
            "numbers: most steps", (1, 1), xycoords="axes fraction", ha="right", va="bottom",
            fontsize=6, color="0.4",
        )  # fmt: skip
    return figure


def _histograms(axes: Axes, columns: Mapping[str, Floats], quantity: str, unit: str) -> None:
    finite = {name: values[np.isfinite(values)] for name, values in columns.items()}
    bins = bins_of(min(map(len, finite.values())))
    edges: Any = np.histogram_bin_edges(np.concatenate(list(finite.values())), bins)
    for (name, values), color in zip(finite.items(), (SAMPLED, REAL), strict=False):
        axes.hist(values, edges, density=True, histtype="stepfilled", color=color, alpha=0.25)
        axes.hist(values, edges, density=True, histtype="step", color=color, label=name)
    axes.legend(frameon=False)
    axes.set(xlabel=f"{quantity} [{unit}]", ylabel=f"density [1 / {unit}]")


def _mosaic(rows: Sequence[Bytes], shape: tuple[int, ...]) -> Bytes:
    """Rows of images on a white canvas of ``shape`` (rows, columns, image), a pixel between."""
    lines, columns, height, width, channels = shape
    canvas = np.full((lines, columns, height + 1, width + 1, channels), 255, np.uint8)
    for i, row in enumerate(rows):
        canvas[i, : len(row), :height, :width] = row
    return canvas.transpose(0, 2, 1, 3, 4).reshape(lines * (height + 1), -1, channels)


def _draw(axes: Axes, image: Bytes) -> None:
    cmap = "gray" if image.shape[2] == 1 else None
    axes.imshow(image, cmap=cmap, vmin=0, vmax=255, interpolation="nearest")
    axes.set_xticks([])
    for side in axes.spines.values():
        side.set_visible(False)
