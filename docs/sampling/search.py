"""Random search of samplers, as many trials for each start, on the training images alone.

``python docs/sampling/search.py OUT [--trials 24] [--start noise --start ood] run=RUN n=1000 ...``
runs ``energy_at.sample`` with the typed overrides and those of each trial, in ``OUT/START/NUMBER``;
when it is re-run, finished trials are kept. It ends with ``OUT/tradeoff.*``, the table of all
trials, and ``OUT/frontier.png`` and ``.pdf``: FID and recall of every trial, and for each start the
trials that no other trial of it beats in both.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from matplotlib.figure import Figure

from energy_at.core.files import read_json
from energy_at.core.progress import Bar
from energy_at.reporting.figures import WIDTH, save
from energy_at.reporting.tradeoff import compare_samplings

SAMPLER = {
    "sampler.steps": (5, 10, 20, 40),
    "sampler.step_size": (0.1, 0.3, 1, 3),
    "sampler.momentum": (0, 0.5, 0.8),
    "sampler.noise": (0, 0.001, 0.01),
    "sampler.energy": ("joint", "marginal", "conditional", "mixed", "sharpened"),
    "sampler.normalize": ("false", "true"),
    "sampler.radius": ("null", 1, 3),
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
    "noise": {},
    "class_gaussian": {"start.scale": (0.5, 0.7, 1)},
    "class_pca": {"start.scale": (0.354, 0.7, 1), "start.variance": (0.9, 0.99)},
    "local_pca": {
        "start.k": (3, 5, 8, 12, 20),
        "start.scale": (0.7, 1),
        "start.by": ("features", "pixels", "low_frequencies"),
    },
    "ood": {},
}
COLORS = dict(zip(STARTS, ("0.6", "#E69F00", "#56B4E9", "#D55E00", "#009E73"), strict=True))


def trial(start: str, number: int) -> list[str]:
    """The overrides of a trial, the same whichever other trials there are."""
    draw = Random(f"{start} {number}")
    guidance = draw.choice(list(GUIDANCE))
    space = {**STARTS[start], **SAMPLER, **GUIDANCE[guidance]}
    drawn = [f"{key}={draw.choice(list(values))}" for key, values in space.items()]
    return [f"start={start}", f"guidance={guidance}", *drawn]


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in FID or in recall, in the order of FID."""
    best: list[tuple[float, float]] = []
    for fid, recall in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or recall > best[-1][1]:
            best.append((fid, recall))
    return best


def frontier_figure(out: Path) -> Figure:
    """FID and recall of all trials; held-out images for comparison."""
    figure = Figure(figsize=(WIDTH, 0.6 * WIDTH), layout="constrained")
    axes = figure.subplots()
    for start in STARTS:
        reports = [read_json(file) for file in sorted(out.glob(f"{start}/*/samples.json"))]
        if not reports:
            continue
        scorer, real = reports[0]["extractor"], reports[0]["sets"]["held-out images"]
        points = [(r["sets"]["samples"]["fid"], r["sets"]["samples"]["recall"]) for r in reports]
        axes.plot(*zip(*points, strict=True), ".", color=COLORS[start], alpha=0.5)
        best = frontier(points)
        axes.plot(*zip(*best, strict=True), "o-", color=COLORS[start], label=start)
    axes.plot(real["fid"], real["recall"], "*", color="black", label="held-out images")
    axes.set_xscale("log")
    axes.set_xlabel(f"FID by {scorer}, against the training images")
    axes.set_ylabel("recall")
    axes.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--start", action="append", choices=list(STARTS), help="all if left out")
    parser.add_argument("--images", help="start.images of the start ood")
    args, typed = parser.parse_known_intermixed_args()
    jobs = [(start, number) for number in range(args.trials) for start in args.start or STARTS]
    for start, number in Bar(jobs, desc="trials"):
        folder = args.out / start / str(number)
        if (folder / "samples.json").is_file():
            continue
        own = [f"start.images={args.images}"] if start == "ood" else []
        command = ["energy_at.sample", *typed, *trial(start, number), *own, f"out={folder}"]
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
