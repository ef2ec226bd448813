"""Rows, table and figure of a study, from its finished runs.

``python docs/studies/collect.py STUDY --machine NAME RUN...`` writes each run as a row of
``STUDY/runs.csv``, next to the rows that are there (a run of the same setting, method and seed
is replaced), then ``STUDY/table.md`` from all rows, and ``without_with.png`` and ``.pdf`` from the
rows of all studies: PGD accuracy without and with DER, a line for each setting. Without ``RUN``
the table and the figure are made again from the committed rows. The command of a row trains and
evaluates its run anew, with ``hydra.run.dir=RUN``.

PGD accuracy is that of 50 steps and 10 restarts: the cell of a run that was evaluated by another
attack, such as one of a search on held-out images, is empty. AutoAttack is that of
``energy_at.evaluate run=RUN attacks=[autoattack] subset=N subset_seed=null`` with as many images
as the other accuracies of the row, if it was run.
"""

import argparse
import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from matplotlib.figure import Figure

from energy_at.core.files import write_atomic
from energy_at.reporting.comparison import TRAINED
from energy_at.reporting.describe import MethodLabel, network_name
from energy_at.reporting.figures import WIDTH, save
from energy_at.reporting.finished_run import FinishedRun, percent
from energy_at.reporting.tables import Table, grouped, mean_cell
from energy_at.runs.folder import RunFolder

HERE = Path(__file__).parent
SETTING = ("data", "images", "network", "eps", "epochs", "warm-up")
KEY = (*SETTING, "method", "constants", "seed")
PGD, STRENGTH = "PGD-50-10 %", {"steps": 50, "restarts": 10}
HELD_OUT = ("held-out PGD-10 % best", "held-out PGD-10 % last")
ACCURACIES = {"clean %": "clean", "FGSM %": "fgsm", PGD: "pgd20"}
WITH_DER, COLOR = " + DER", "#D55E00"
Row = Mapping[str, str]


def row(run: FinishedRun, machine: str) -> dict[str, str]:
    """One run: what it was, its accuracies on test images, and what its training did."""
    cfg, test = run.config, run.results["last"]["test"]
    held_out = 100 * run.log["val/acc/pgd10"].values
    best_last = (held_out.max(), held_out[-1]) if len(held_out) else (None, None)
    alarms = run.results.get("alarms", [])
    accuracies = {title: percent(test, name) for title, name in ACCURACIES.items()}
    if not STRENGTH.items() <= cfg.evaluation.attacks.pgd.items():
        accuracies[PGD] = None
    found = {
        "data": cfg.dataset.name,
        "images": cfg.dataset.subset or "all",
        "network": network_name(cfg),
        "eps": cfg.threat.eps,
        "epochs": cfg.trainer.max_epochs,
        "warm-up": cfg.training.eps_warmup,
        "method": str(MethodLabel.of(cfg)),
        "constants": constants(run),
        "seed": cfg.seed,
        "test images": test["n"],
        **accuracies,
        "AutoAttack %": autoattack(run),
        **dict(zip(HELD_OUT, best_last, strict=True)),
        **{title: run.last_epoch_mean(metric) for title, metric in TRAINED.items()},
        "status": str(run.status),
        "first alarm": f"{alarms[0]['signal']}, step {alarms[0]['step']}" if alarms else "none",
        "forward passes": run.results["training"]["forward_equivalents"],
        "commit": run.folder.record().get("git_commit", "")[:7],
        "machine": machine,
        "command": "python -m energy_at.train " + " ".join(typed(run)),
    }
    return {
        k: f"{v:.4g}" if isinstance(v, float) else "" if v is None else str(v)
        for k, v in found.items()
    }


def typed(run: FinishedRun) -> list[str]:
    """The overrides of the run that any machine can use."""
    local = ("hydra.", "trainer.enable_progress_bar=")
    return [override for override in run.folder.overrides() if not override.startswith(local)]


def constants(run: FinishedRun) -> str:
    """What was typed of attack, loss and regularizer: ``reg.weight=5``; empty for the defaults."""
    return " ".join(o for o in typed(run) if o.startswith(("attack.", "loss.", "reg.")))


def autoattack(run: FinishedRun) -> float | None:
    """Accuracy of the last network under AutoAttack, on the same images and at its own radius."""
    own = str(run.config.threat.eps)
    first = {"split": "test", "images": run.results["last"]["test"]["n"], "seed": None}
    for file in sorted(run.folder.path.glob("evaluation/last-*/evaluation.json")):
        record = json.loads(file.read_text())
        if first.items() <= record["dataset"].items():
            for found in record["accuracies"]:
                if (found["attack"], found["eps_text"]) == ("autoattack", own):
                    return 100 * float(found["accuracy"])
    return None


def read(file: Path) -> list[Row]:
    if not file.is_file():
        return []
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def merged(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    rows = {tuple(row[key] for key in KEY): row for row in (*old, *new)}
    return [rows[key] for key in sorted(rows)]


def numbers(rows: Sequence[Row], column: str) -> list[float]:
    return [float(row[column]) for row in rows if row[column]]


def table(rows: Sequence[Row]) -> Table:
    """A line for each setting and method: accuracies of the runs that are robust, the rest of all.

    Columns without any value are left out.
    """
    lines = []
    for key, own in grouped(rows, lambda row: tuple(row[k] for k in KEY[:-1])).items():
        robust = [row for row in own if row["status"] in ("robust", "not logged")]
        kinds = Counter(row["status"].partition(" at step")[0] for row in own)
        signals = Counter(row["first alarm"].partition(", step")[0] for row in own)
        known = {k: v for k, v in zip(KEY, key, strict=False) if v}
        lines.append(
            known
            | {"runs": ", ".join(f"{kind} {n} of {len(own)}" for kind, n in kinds.items())}
            | {name: mean_cell(numbers(robust, name)) for name in (*ACCURACIES, "AutoAttack %")}
            | {name: mean_cell(numbers(own, name)) for name in HELD_OUT}
            | {name: mean_cell(numbers(own, name), ".2f") for name in TRAINED}
            | {"first alarm": ", ".join(f"{name} {n}" for name, n in signals.items())}
            | {"forward passes": mean_cell(numbers(own, "forward passes"))}
        )
    columns = list(dict.fromkeys(key for line in lines for key in line))
    shared = {k for k in SETTING if len({line.get(k) for line in lines}) == 1}
    columns = [c for c in columns if c not in shared and any(line.get(c) for line in lines)]
    return Table(tuple(columns), [tuple(line.get(c, "") for c in columns) for line in lines])


def without_with(rows: Sequence[Row]) -> Figure:
    """PGD accuracy without (circle) and with DER (disk): means and every seed."""
    found = grouped(rows, lambda row: tuple(row[k] for k in (*SETTING, "method")))
    pairs = {
        (*setting, method): (own, found[*setting, method + WITH_DER])
        for (*setting, method), own in found.items()
        if (*setting, method + WITH_DER) in found
    }
    figure = Figure(figsize=(WIDTH, 0.9 + 0.28 * len(pairs)), layout="constrained")
    axes = figure.subplots()
    for y, ends in enumerate(pairs.values()):
        every = [numbers(own, PGD) for own in ends]
        means = [mean(values) for values in every]
        axes.plot(means, [y, y], color=COLOR, linewidth=1, zorder=1)
        for values, middle, face in zip(every, means, ("white", COLOR), strict=True):
            axes.scatter(values, [y] * len(values), s=8, color="0.6", zorder=2)
            axes.scatter([middle], [y], s=40, facecolor=face, edgecolor=COLOR, zorder=3)
    axes.set_yticks(range(len(pairs)), [label(key) for key in pairs])
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.set_xlim(left=-1)  # a circle at 0 is whole
    axes.set_xlabel("PGD-50-10 accuracy, test images [%], without (open) and with DER (filled)")
    return figure


def label(key: Sequence[str]) -> str:
    data, images, network, eps, *_, method = key
    return f"{data}, {images} images, {network}, {eps}: {method}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study")
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--machine", default="")
    args = parser.parse_intermixed_args()
    file = HERE / args.study / "runs.csv"
    new = [row(FinishedRun(RunFolder.open(path)), args.machine) for path in args.runs]
    rows = merged(read(file), new)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_atomic(file.parent / "table.md", table(rows).markdown() + "\n")
    save(
        without_with([r for f in sorted(HERE.glob("*/runs.csv")) for r in read(f)]),
        HERE / "without_with",
    )


if __name__ == "__main__":
    main()
