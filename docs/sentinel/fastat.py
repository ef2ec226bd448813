"""Replay the held-out CO signal over the public curves of the FastAT benchmark.

``python docs/sentinel/fastat.py curves.csv.gz`` prints a Markdown table. The curves (arXiv
2604.22853: 186 runs of 20 fast methods, per-epoch accuracies of raw and EMA weights) are not in
this repository. A run counts as collapsed from the first epoch on at which FGSM accuracy exceeds
PGD-10 accuracy by more than 25 points.
"""

import csv
import gzip
import sys
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from energy_at.overfitting import Thresholds
from energy_at.overfitting.detector import CatastrophicOverfitting

CLASSES = {"cifar10": 10, "cifar100": 100, "tiny-imagenet": 200}
GAP = 0.25  # FGSM minus PGD-10 accuracy of a collapsed network
Curve = Sequence[tuple[float, float]]  # FGSM and PGD-10 accuracy of each epoch


def curves(path: str, weights: str) -> list[tuple[int, Curve]]:
    """Number of classes and curve of each run that has all values."""
    runs: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            runs[row["dataset"], row["method"], row["seed"]].append(row)
    found = []
    for (dataset, *_), rows in runs.items():
        rows.sort(key=lambda row: int(row["epoch"]))
        cells = [(row[f"{weights}_fgsm"], row[f"{weights}_pgd10"]) for row in rows]
        if all(fgsm and pgd for fgsm, pgd in cells):
            found.append((CLASSES[dataset], [(float(f), float(p)) for f, p in cells]))
    return found


def first_alarm(curve: Curve, classes: int, ratio: float) -> int | None:
    """Epoch of the first alarm, from 1 on."""
    detector = CatastrophicOverfitting(Thresholds(ratio=ratio), classes)
    for epoch, (fgsm, pgd) in enumerate(curve, 1):
        row = {"step": float(epoch), "val/acc/fgsm": fgsm, "val/acc/pgd10": pgd}
        if detector.take_validation(row):
            return epoch
    return None


def score(runs: list[tuple[int, Curve]], ratio: float) -> list[str]:
    """One row of the table: collapses, misses, false alarms, latencies."""
    latencies, missed, false, healthy = [], 0, 0, 0
    for classes, curve in runs:
        onset = next((e for e, (f, p) in enumerate(curve, 1) if f - p > GAP), None)
        alarm = first_alarm(curve, classes, ratio)
        if onset is None:
            healthy += 1
            false += alarm is not None
        elif alarm is None:
            missed += 1
        else:
            latencies.append(alarm - onset)
    late = sum(latency > 0 for latency in latencies)
    return [
        f"{len(latencies)} of {len(latencies) + missed}",
        f"{false} of {healthy}",
        f"{median(latencies):g} [{min(latencies)}, {max(latencies)}]",
        str(late),
    ]


def main() -> None:
    print("| weights | ratio | detected | false alarms | latency, epochs: median [range] | late |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, weights in (("raw", "val"), ("EMA", "ema")):
        runs = curves(sys.argv[1], weights)
        for ratio in (0.3, 0.4, 0.5, 0.6):
            print("| " + " | ".join([name, f"{ratio:g}", *score(runs, ratio)]) + " |")


if __name__ == "__main__":
    main()
