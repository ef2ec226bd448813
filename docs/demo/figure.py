"""Draw every run of the demo's setting, and the two of seed 0: ``python docs/demo/figure.py``.

In ``runs.png`` one dot is one training of ``runs.csv``: PGD-20 accuracy on held-out images after
the last epoch. ``delta_energy.png`` is the figure that ``make demo`` draws, from ``seed0``.
"""

import csv
from pathlib import Path

import matplotlib.pyplot as plt

from energy_at.reporting.figures import save
from energy_at.reporting.figures.training_curves import delta_energy_figure
from energy_at.runs.metrics_log import read_metrics_log

HERE = Path(__file__).parent
LABELS = {"none": "FGSM-AT", "der": "FGSM-AT + DER"}
COLOURS = {"none": "#000000", "der": "#D55E00"}  # as in every figure
SEED_0 = {"fgsm_at": "FGSM-AT, seed 0", "fgsm_at_der": "FGSM-AT + DER, seed 0"}
SETTING = "textured MNIST (5,000 images), PreActResNet18 of width 8, L-inf, eps 0.1, 12 epochs"


def main() -> None:
    logs = {label: read_metrics_log(HERE / f"seed0/{name}.csv") for name, label in SEED_0.items()}
    save(delta_energy_figure(logs, SETTING), HERE / "delta_energy")
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
