"""Draw every run of the demo's setting, ``runs.csv``: ``python docs/demo/figure.py``.

One dot is one training: PGD-20 accuracy on held-out images after the last epoch.
"""

import csv
from pathlib import Path

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
LABELS = {"none": "FGSM-AT", "der": "FGSM-AT + DER"}
COLOURS = {"none": "#000000", "der": "#D55E00"}  # as in every figure


def main() -> None:
    with (HERE / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    places = list(dict.fromkeys(_place(row) for row in rows))
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for reg, label in LABELS.items():
        own = [row for row in rows if row["reg"] == reg]
        offset = -0.15 if reg == "none" else 0.15
        x = [places.index(_place(row)) + offset + 0.02 * (int(row["seed"]) - 4.5) for row in own]
        y = [float(row["PGD-20 %"]) for row in own]
        axes.scatter(x, y, s=18, color=COLOURS[reg], label=f"{label} ({len(own)} runs)", zorder=3)
    axes.axhline(10, color="0.7", linewidth=1, zorder=1)
    axes.annotate("chance", (1, 10), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    axes.set_xticks(range(len(places)), places)
    axes.set_ylim(-3, 100)
    axes.set_ylabel("PGD-20 accuracy, held-out images, %")
    axes.set_title("The demo's setting: one dot is one training, seeds from left to right")
    axes.legend(loc="center right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "runs.png", dpi=150)


def _place(row: dict[str, str]) -> str:
    threads = int(row["threads"])
    return f"{row['instruction set']}\n{threads} thread{'s' if threads > 1 else ''}"


if __name__ == "__main__":
    main()
