"""Pictures of samples: grids, nearest training images, distances, energies, quality and variety."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL.Image import Image, Resampling, fromarray

from energy_at.reporting.figures.style import OPEN, entitle

START_COLORS = {
    "noise": "#000000",
    "class_gaussian": "#0072B2",
    "class_pca": "#009E73",
    "local_pca": "#D55E00",
}
SAMPLED, REAL = "#D55E00", "#0072B2"
ROWS, COLUMNS = 25, 60  # of images that a page of many classes holds
LINES = {"none": "--", "class_energy": "-", "class_stop": ":"}
VARIETY = "variety: L2 distance within a class [pixel range]"
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]


def grid(images: Bytes, labels: NDArray[np.int64], names: Sequence[str], per_class: int) -> Figure:
    """The first images of every class, a row for each; many classes stand in blocks side by side.

    Args:
        images: (n, height, width, channels).
        labels: Their classes.
        names: Of the classes.
        per_class: Columns; fewer if the classes have fewer samples, or the page no room.
    """
    blocks = -(-len(names) // ROWS)
    room = per_class if blocks == 1 else min(per_class, max(1, COLUMNS // blocks))
    rows = [images[labels == label][:room] for label in range(len(names))]
    columns = max(1, *map(len, rows))
    height = -(-len(names) // blocks)
    inches = min(0.5, 7.0 / columns) if blocks == 1 else 0.3
    with mpl.rc_context({"font.size": 8 if blocks == 1 else 6}):
        size = (blocks * (inches * columns + (1.0 if blocks == 1 else 0.7)), inches * height + 0.1)
        figure = Figure(figsize=size, layout="constrained")
        for i, axes in enumerate(figure.subplots(1, blocks, squeeze=False)[0]):
            part = slice(i * height, (i + 1) * height)
            _block(axes, rows[part], names[part], (height, columns, *images.shape[1:]))
    return figure


def _block(axes: Axes, rows: Sequence[Bytes], names: Sequence[str], shape: tuple[int, ...]) -> None:
    """Rows of images with their names, on a canvas of ``shape`` (rows, columns, image)."""
    height, columns, side, _, channels = shape
    canvas = np.full((height * (side + 1), columns * (side + 1), channels), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = i * (side + 1), j * (side + 1)
            canvas[top : top + side, left : left + side] = image
    _shown(axes, canvas)
    axes.set_yticks([(i + 0.5) * (side + 1) for i in range(len(rows))], names)
    axes.tick_params(length=0)


def class_grid(images: Bytes) -> Image:
    """Images of one class in rows of ten, each at least 64 pixels wide; no axes.

    Args:
        images: (n, height, width, channels).
    """
    count, height, width, channels = images.shape
    columns = min(10, count)
    rows = -(-count // columns)
    canvas = np.full((rows * columns, height + 1, width + 1, channels), 255, np.uint8)
    canvas[:count, :height, :width] = images
    canvas = canvas.reshape(rows, columns, height + 1, width + 1, channels)
    whole = canvas.transpose(0, 2, 1, 3, 4).reshape(rows * (height + 1), -1, channels)
    picture = fromarray(whole[:, :, 0] if channels == 1 else whole)
    scale = -(-64 // width)
    return picture.resize((scale * picture.width, scale * picture.height), Resampling.NEAREST)


def nearest_figure(pairs: Sequence[tuple[Bytes, Bytes, float]], title: str) -> Figure:
    """Samples above their nearest training images, with their distances."""
    columns = len(pairs)
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(0.75 * columns + 0.6, 2.3), layout="constrained")
        axes = figure.subplots(2, columns, squeeze=False)
        for i, (ours, theirs, distance) in enumerate(pairs):
            for line, image in zip(axes[:, i], (ours, theirs), strict=True):
                _shown(line, image)
                line.set(xticks=[], yticks=[])
            axes[1, i].set_xlabel(f"{distance:.2f}")
        axes[0, 0].set_ylabel("sample")
        axes[1, 0].set_ylabel("nearest\ntraining image")
        entitle(figure, title)
    return figure


def distributions_figure(
    distances: Mapping[str, Floats], energies: Mapping[str, Floats], symbol: str, title: str
) -> Figure:
    """Distances to the nearest training image, and energies, each against real images.

    Args:
        distances: L2, in pixels, by the name of the set.
        energies: In nats, by the name of the set.
        symbol: Of the kind of energy.
        title: The setting.
    """
    with mpl.rc_context(OPEN):
        figure = Figure(figsize=(8.4, 3.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        _histograms(left, distances)
        left.set(xlabel="L2 distance to the nearest training image [pixel range]", ylabel="density")
        _histograms(right, energies)
        right.set(xlabel=f"{symbol} [nats]", ylabel="density")
        entitle(figure, title)
    return figure


def tradeoff_figure(curves: Mapping[str, Sequence[Mapping[str, float]]], title: str) -> Figure:
    """Quality against variety: one curve for each start and guidance, a point for each job.

    Args:
        curves: By ``start, guidance``; points hold ``variety``, ``fid``, ``precision``, ``recall``
            and ``steps``.
        title: The setting.
    """
    panels = {
        "variety": (VARIETY, "fid", "FID (less is better)"),
        "recall": ("recall (variety)", "precision", "precision (quality)"),
    }
    with mpl.rc_context(OPEN):
        figure = Figure(figsize=(9.4, 3.9), layout="constrained")
        for axes, (x, (xlabel, y, ylabel)) in zip(
            figure.subplots(1, 2), panels.items(), strict=True
        ):
            for name, points in curves.items():
                start, _, guidance = name.partition(", ")
                color, line = START_COLORS.get(start, "#999999"), LINES.get(guidance, "-.")
                xs, ys = [p[x] for p in points], [p[y] for p in points]
                axes.plot(xs, ys, line, color=color, marker="o", markersize=3.5, label=name)
                for point, a, b in zip(points, xs, ys, strict=True):
                    said = f"{point['steps']:g}"
                    axes.annotate(said, (a, b), (2, 3), textcoords="offset points", fontsize=6)
            axes.set(xlabel=xlabel, ylabel=ylabel)
            if y == "fid":  # starts differ by orders of magnitude
                axes.set_yscale("log")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False
        )
        entitle(figure, title)
    return figure


def _histograms(axes: Axes, columns: Mapping[str, Floats]) -> None:
    finite = {name: values[np.isfinite(values)] for name, values in columns.items()}
    edges: Any = np.histogram_bin_edges(np.concatenate(list(finite.values())), 40)
    for (name, values), color in zip(finite.items(), (SAMPLED, REAL), strict=False):
        axes.hist(values, edges, density=True, histtype="stepfilled", color=color, alpha=0.25)
        axes.hist(values, edges, density=True, histtype="step", color=color, label=name)
    axes.legend(frameon=False)


def _shown(axes: Axes, image: Bytes) -> None:
    grey = image.shape[2] == 1
    axes.imshow(
        image[:, :, 0] if grey else image,
        cmap="gray" if grey else None,
        vmin=0,
        vmax=255,
        interpolation="nearest",
    )
    axes.set_xticks([])
    for side in axes.spines.values():
        side.set_visible(False)
