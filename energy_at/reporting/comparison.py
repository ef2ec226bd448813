"""Runs and methods in tables: each run and checkpoint, and each method over its seeds."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from omegaconf import DictConfig

from energy_at.core.files import write_atomic
from energy_at.overfitting.alarms import find_column
from energy_at.reporting.describe import ROBUST, MethodLabel, leaves, method_labels, setting
from energy_at.reporting.figures import save
from energy_at.reporting.figures.training_curves import methods_figure
from energy_at.reporting.finished_run import FinishedRun, percent, typed_keys
from energy_at.reporting.panels import AAE, ATTACKED, DELTA_X, DELTA_XY, HELD_OUT_CLEAN, PGD
from energy_at.reporting.tables import (
    Table,
    each_cell,
    grouped,
    mean_cell,
    spread,
    steps_of_runs_cell,
)
from energy_at.runs.folder import RunFolder, folder_names

FILES = (
    *("comparison.md", "comparison.csv", "comparison.tex", "comparison.png", "comparison.pdf"),
    *("runs.md", "runs.csv", "runs.tex", "epochs.csv"),
)
IMAGES = {"val": "held-out", "test": "test"}  # their names in tables
TRAINED = {"train adv %": ATTACKED, "AAE share %": AAE, "dE(x)": DELTA_X, "dE(x, y)": DELTA_XY}
BY_EPOCH = {"held-out clean %": HELD_OUT_CLEAN, "held-out PGD %": PGD, **TRAINED}
OPTIONAL = (  # columns that a terminal has no room for, the least needed first
    *("minutes with validation", "forward passes", "first alarm at step"),
    *("n", "train adv %", "AAE share %", "dE(x, y)", "dE(x)", "runs", "FGSM %"),
)


@dataclass(frozen=True)
class Entry:
    """A run with the names of its folder and its method, and a label that no other run has."""

    run: FinishedRun
    place: str
    method: MethodLabel
    label: MethodLabel

    @property
    def path(self) -> Path:
        return self.run.folder.path


def compare(folders: Sequence[RunFolder]) -> list[Entry]:
    """All runs, method by method, as ``FGSM-AT + DER, seed 0``.

    Runs that differ in their seed only have the same method.
    """
    every = [FinishedRun(folder) for folder in folders]
    groups = grouped(every, lambda run: frozenset(leaves(run.config).items())).values()
    methods = method_labels([first.config for first, *_ in groups], typed_keys(every))
    runs = [(method, run) for method, own in zip(methods, groups, strict=True) for run in own]
    places = folder_names([run.folder for _, run in runs])
    labels = [replace(method, run=f"seed {run.config.seed}") for method, run in runs]
    count = Counter(labels)
    return [
        Entry(
            run,
            place,
            method,
            label if count[label] == 1 else replace(label, run=f"{label.run}, {place}"),
        )
        for (method, run), place, label in zip(runs, places, labels, strict=True)
    ]


def by_method(found: Sequence[Entry]) -> dict[MethodLabel, list[FinishedRun]]:
    groups = grouped(found, lambda entry: entry.method)
    return {label: [entry.run for entry in own] for label, own in groups.items()}


def by_status(found: Sequence[Entry]) -> dict[MethodLabel, list[FinishedRun]]:
    """Runs by method; those that are no result in groups of their own, by their status.

    The others of such a method are called robust.
    """
    groups = grouped(found, lambda entry: replace(entry.method, status=entry.run.mark()))
    split = {replace(label, status="") for label in groups if label.status}
    return {
        replace(label, status=ROBUST) if label in split else label: [entry.run for entry in own]
        for label, own in groups.items()
    }


def configs(found: Sequence[Entry]) -> list[DictConfig]:
    return [entry.run.config for entry in found]


def write_comparison(found: Sequence[Entry], out: Path) -> str:
    """Writes ``FILES`` to ``out``: the comparison, every run, all curves in one figure and as CSV.

    Returns:
        The comparison for a terminal.
    """
    table = comparison_table(found)
    table.write(out / "comparison", numbers=comparison_numbers(found))
    runs_table(found).write(out / "runs")
    write_atomic(out / "epochs.csv", epochs_table(found).csv())
    save(methods_figure(by_status(found), setting(configs(found))), out / "comparison")
    return table.fitted((*OPTIONAL, "status"))  # accuracies name a status that is no result


def results_table(runs: Sequence[FinishedRun]) -> Table:
    """One row for each run, checkpoint and image set.

    Accuracies are shares of all images, in percent. Accuracy under the training attack, AAE share
    and delta energies (nats) are means over the last epoch of training, in the first row of a run.
    """
    titles = _accuracy_titles(runs)
    rows = []
    for run, name in zip(runs, folder_names([run.folder for run in runs]), strict=True):
        means = {
            title: mean_cell([run.last_epoch_mean(metric)], metric.cell_form)
            for title, metric in TRAINED.items()
        }
        rows += [
            {
                "run": name,
                "checkpoint": checkpoint,
                "images": IMAGES[images],
                "n": str(shares["n"]),
                **{title: mean_cell([percent(shares, key)]) for key, title in titles.items()},
                **(means if i == 0 else dict.fromkeys(means, "")),
                "status": run.status_at(checkpoint),
            }
            for i, (checkpoint, images, shares) in enumerate(run.evaluated)
        ]
    return Table.of(rows)


def comparison_table(found: Sequence[Entry]) -> Table:
    """One row for each method and checkpoint, on test images; mean and range over seeds.

    A method has no accuracy if one of its runs collapsed or is not robust: its status says how
    many, and from which step. What was measured in training stands in the first row of a method.
    """
    titles = _accuracy_titles([entry.run for entry in found])
    rows = []
    for label, runs in by_method(found).items():
        aae_share, status = _aae_share(runs), _status(runs)
        once = {"first alarm at step": _first_alarms(runs), **_costs(runs)}
        for i, checkpoint in enumerate(runs[0].checkpoints):
            rows.append(
                {
                    "method": str(label),
                    "checkpoint": checkpoint,
                    "runs": str(len(runs)),
                    **{title: _accuracy(runs, checkpoint, key) for key, title in titles.items()},
                    "AAE share %": aae_share if i == 0 else "",
                    "status": status,
                    **(once if i == 0 else dict.fromkeys(once, "")),
                }
            )
    return Table.of(rows)


def comparison_numbers(found: Sequence[Entry]) -> Table:
    """The same as numbers: one row for each method, checkpoint and quantity.

    Statistics are those of the ``n`` runs that are results, of all ``runs``.
    """
    rows = []
    for label, runs in by_method(found).items():
        for checkpoint in runs[0].checkpoints:
            results = [run for run in runs if not run.mark(checkpoint)]
            values = {
                f"{key} accuracy [%]": [run.percent(checkpoint, key) for run in results]
                for key in _attacks(runs, checkpoint)
            }
            values |= {
                m.axis: [run.last_epoch_mean(m) for run in results] for m in TRAINED.values()
            }
            rows += [
                {
                    "method": str(label),
                    "checkpoint": checkpoint,
                    "quantity": name,
                    "runs": len(runs),
                    **spread(cells),
                }
                for name, cells in values.items()
            ]
    return Table.of(rows)


def _attacks(runs: Sequence[FinishedRun], checkpoint: str) -> list[str]:
    """Columns of all attacks that some run was evaluated with, on test images."""
    every = [run.results.get(checkpoint, {}).get("test", {}) for run in runs]
    return list(dict.fromkeys(key for shares in every for key in shares if key != "n"))


def runs_table(found: Sequence[Entry]) -> Table:
    """One row for each run and checkpoint with its accuracies, whether they are a result or not.

    The status and the alarm are those of the run; its AAE share, the mean over its last epoch,
    stands in its first row.
    """
    titles = _accuracy_titles([entry.run for entry in found])
    return Table.of(
        [
            {
                "method": str(entry.method),
                "run": entry.place,
                "seed": str(run.config.seed),
                "checkpoint": checkpoint,
                **{t: mean_cell([run.percent(checkpoint, key)]) for key, t in titles.items()},
                "AAE share %": "" if i else mean_cell([run.last_epoch_mean(AAE)]),
                "status": run.status.kind,
                "lost at step": "" if run.status.step is None else str(run.status.step),
                **_first_alarm(run),
                **_costs([run]),
            }
            for entry, run in ((entry, entry.run) for entry in found)
            for i, checkpoint in enumerate(run.checkpoints)
        ]
    )


def epochs_table(found: Sequence[Entry]) -> Table:
    """For CSV: one row for each run and epoch, counted from 1, with its validation.

    What was measured in training is the mean over the steps of the epoch, as the figure draws it;
    delta energies are in nats. A value that was not logged is left empty.
    """
    rows = []
    for entry in found:
        means = {t: (m.scale, entry.run.log[m.key].epoch_means()) for t, m in BY_EPOCH.items()}
        of_run = {"method": str(entry.method), "run": entry.place, "seed": entry.run.config.seed}
        rows += [
            {
                **of_run,
                "epoch": epoch,
                **{
                    title: round(scale * mean[epoch], 6) if epoch in mean else ""
                    for title, (scale, mean) in means.items()
                },
            }
            for epoch in sorted(set().union(*(mean for _, mean in means.values())))
        ]
    return Table.of(rows)


def _accuracy_titles(runs: Sequence[FinishedRun]) -> dict[str, str]:
    """By attack; PGD as ``PGD-50-10`` if all runs were evaluated with the same steps, restarts."""
    names = {find_column(shares, "pgd20") for run in runs for _, _, shares in run.evaluated}
    pgd = ["PGD", *re.findall(r"\d+", names.pop() if len(names) == 1 else "")]
    return {"clean": "clean %", "fgsm": "FGSM %", "pgd20": f"{'-'.join(pgd)} %"}


def _accuracy(runs: Sequence[FinishedRun], checkpoint: str, name: str) -> str:
    marks = sorted({run.mark(checkpoint) for run in runs} - {""})
    return ", ".join(marks) or mean_cell([run.percent(checkpoint, name) for run in runs])


def _aae_share(runs: Sequence[FinishedRun]) -> str:
    """Mean of the runs; that of each, if one is no result."""
    shares = [run.last_epoch_mean(AAE) for run in runs]
    return each_cell(shares) if any(run.mark() for run in runs) else mean_cell(shares)


def _status(runs: Sequence[FinishedRun]) -> str:
    """``robust``, or ``collapsed at 474, 316 (2 of 3 runs); not robust (1 of 3 runs)``."""
    found = [run.status for run in runs]
    kinds = {status.kind for status in found}
    if kinds in ({"robust"}, {"not logged"}):
        return kinds.pop()
    lost = [
        (s.kind if s.step is None else f"{s.kind} at", s.step) for s in found if s.kind != "robust"
    ]
    return steps_of_runs_cell(lost, len(runs))


def _first_alarms(runs: Sequence[FinishedRun]) -> str:
    alarms = sorted((a for run in runs for a in run.first_alarms), key=lambda alarm: alarm[0])
    return steps_of_runs_cell(alarms, len(runs)) or runs[0].without_alarm


def _first_alarm(run: FinishedRun) -> dict[str, str]:
    """``CO``, its step, and its epoch, counted from 1."""
    kind, step, epoch = run.without_alarm, "", ""
    if run.first_alarms:
        kind, at = run.first_alarms[0]
        step = str(at)
        epoch = "" if run.steps is None else str(ceil(at / run.log.steps_per_epoch))
    return {"first alarm": kind, "alarm at step": step, "alarm in epoch": epoch}


def _costs(runs: Sequence[FinishedRun]) -> dict[str, str]:
    costs = [run.results.get("training", {}) for run in runs]
    return {
        "forward passes": mean_cell([cost.get("forward_equivalents") for cost in costs]),
        "minutes with validation": mean_cell([c["seconds"] / 60 for c in costs if "seconds" in c]),
    }
