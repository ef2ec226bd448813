"""Random search of samplers, as many trials for each start, on the training images alone.

``python docs/sampling/search.py OUT [--trials 24] [--start noise --start ood] run=RUN n=1000 ...``
runs ``energy_at.sample`` with the typed overrides and those of each trial, in a folder of
``OUT/START`` that is named by its number and what is typed; when it is re-run, finished trials are
kept. It ends with ``OUT/tradeoff.*``, the table of all
trials, and ``OUT/frontier.png`` and ``.pdf``: FID and recall, and KID and copies, of every trial,
and for each start the trials that no other trial of it beats in both.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from matplotlib.figure import Figure

from energy_at.core.files import digest, read_json
from energy_at.core.progress import Bar
from energy_at.reporting.figures import WIDTH, save
from energy_at.reporting.tradeoff import compare_samplings
from energy_at.sampling.score import HELD_OUT, SAMPLES, START

SAMPLER = {
    "sampler.steps": (5, 10, 20, 40),
    "sampler.step_size": (0.3, 1, 3),
    "sampler.momentum": (0, 0.5, 0.8),
    "sampler.noise": (0, 0.001),
    "sampler.energy": ("joint", "marginal", "conditional", "mixed", "sharpened"),
    "sampler.normalize": ("false", "true"),
    "sampler.radius": ("null", 3),
}
GUIDANCE: Mapping[str, Mapping[str, Sequence[object]]] = {
    "none": {},
    "class_energy": {
        "guidance.draw": ("empirical", "mean", "quantile"),
        "guidance.tolerance": (0.03, 0.1, 0.5),
        "guidance.pulls": ("true", "false"),
    },
}
STARTS: Mapping[str, Mapping[str, Sequence[object]]] = {
    "noise": {"sampler.radius": ("null",)},  # images are far from it
    "class_gaussian": {"start.scale": (0.5, 0.7, 1)},
    "class_pca": {"start.scale": (0.354, 0.7, 1), "start.variance": (0.9, 0.99)},
    "local_pca": {
        "start.k": (5, 8, 12, 20),
        "start.scale": (1, 1.3, 1.6),
        "start.by": ("features", "pixels", "low_frequencies"),
    },
    "ood": {"start.by": ("number", "features"), "start.closest": (0.1, 0.3, 1)},
}
COLORS = dict(zip(STARTS, ("0.6", "#E69F00", "#56B4E9", "#D55E00", "#009E73"), strict=True))


def trial(start: str, number: int) -> list[str]:
    """The overrides of a trial, the same whichever other trials there are."""
    draw = Random(f"{start} {number}")
    guidance = draw.choice(list(GUIDANCE))
    space = {**SAMPLER, **GUIDANCE[guidance], **STARTS[start]}
    drawn = [f"{key}={draw.choice(list(values))}" for key, values in space.items()]
    return [f"start={start}", f"guidance={guidance}", *drawn]


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points with a low first and a high second value that no other beats in both."""
    best: list[tuple[float, float]] = []
    for quality, variety in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or variety > best[-1][1]:
            best.append((quality, variety))
    return best


def frontier_figure(out: Path) -> Figure:
    """FID and recall, KID and copies of all trials; small: the starts alone; held-out images."""
    figure = Figure(figsize=(WIDTH, 0.55 * WIDTH), layout="constrained")
    found = {start: sorted(out.glob(f"{start}/*/samples.json")) for start in STARTS}
    reports = {start: [read_json(file) for file in files] for start, files in found.items()}
    first = next(report for every in reports.values() for report in every)
    panels = (("FID", "fid", "recall", 1), ("KID", "kid", "copied", -1))
    for axes, (name, *scores, better) in zip(figure.subplots(1, 2), panels, strict=True):
        for start, every in reports.items():
            if every:
                alone, points = _points(every, START, scores), _points(every, SAMPLES, scores)
                best = frontier([(x, better * y) for x, y in points])
                line = [(x, better * y) for x, y in best]
                axes.plot(*zip(*alone, strict=True), "+", color=COLORS[start], markersize=4)
                axes.plot(*zip(*points, strict=True), ".", color=COLORS[start], alpha=0.5)
                label = start.replace("_", " ")
                axes.plot(*zip(*line, strict=True), "o-", color=COLORS[start], label=label)
        (real,) = _points([first], HELD_OUT, scores)
        axes.plot(*real, "*", color="black", label=HELD_OUT)
        axes.set_xlabel(f"{name} by {first['extractor']}")
        axes.set_ylabel(scores[1])
    figure.axes[0].set_xscale("log")
    figure.axes[1].set_xscale("symlog", linthresh=0.01)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _points(
    reports: Sequence[Mapping[str, Any]], images: str, scores: Sequence[str]
) -> list[tuple[float, ...]]:
    return [tuple(report["sets"][images][score] for score in scores) for report in reports]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--start", action="append", choices=list(STARTS), help="all if left out")
    parser.add_argument("--images", help="start.images of the start ood")
    args, typed = parser.parse_known_intermixed_args()
    jobs = [(start, number) for number in range(args.trials) for start in args.start or STARTS]
    cache = [] if any(o.startswith("cache=") for o in typed) else [f"cache={args.out}/cache"]
    for start, number in Bar(jobs, desc="trials"):
        own = [f"start.images={args.images}"] if start == "ood" else []
        settings = [*typed, *trial(start, number), *own]
        folder = args.out / start / f"{number}-{digest(settings)[:8]}"
        if (folder / "samples.json").is_file():
            continue
        command = ["energy_at.sample", *settings, *cache, f"out={folder}"]
        ended = subprocess.run(
            [sys.executable, "-m", *command], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        if ended.returncode:  # a step that is too long is a trial too
            print(" ".join(command), ended.stderr.decode().strip(), sep="\n", file=sys.stderr)
    table = compare_samplings(args.out)
    if table is None:
        sys.exit("no trial has finished")
    print(table.splitlines()[-1])
    save(frontier_figure(args.out), args.out / "frontier")


if __name__ == "__main__":
    main()
