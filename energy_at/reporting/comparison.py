"""Runs and methods in tables: each run and checkpoint, and each method over its seeds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from omegaconf import DictConfig

from energy_at.reporting.describe import MethodLabel, leaves, method_labels, setting
from energy_at.reporting.figures import save
from energy_at.reporting.figures.training_curves import methods_figure
from energy_at.reporting.finished_run import FinishedRun, typed_keys
from energy_at.reporting.panels import AAE, ATTACKED, DELTA_X, DELTA_XY
from energy_at.reporting.tables import (
    Table,
    each_cell,
    mean_cell,
    steps_of_runs_cell,
)
from energy_at.runs.folder import RunFolder, folder_names

FILES = ("comparison.md", "comparison.csv", "comparison.png", "comparison.pdf", "runs.csv")
ACCURACIES = ("clean", "fgsm", "pgd")
COSTS = ("forward passes", "minutes with validation")
NO_SENTINEL = "no sentinel"
Groups = Mapping[MethodLabel, Sequence[FinishedRun]]


@dataclass(frozen=True)
class Entry:
    """A run with the names of its folder and its method, and a label that no other run has."""

    run: FinishedRun
    place: str
    method: MethodLabel
    label: MethodLabel

    @property
    def path(self) -> Path:
        """Its folder, as typed."""
        return self.run.folder.path


def grouped(folders: Sequence[RunFolder]) -> dict[MethodLabel, list[FinishedRun]]:
    """Runs that differ in their seed only, by the label of their method."""
    runs = [FinishedRun(folder) for folder in folders]
    groups: dict[frozenset[tuple[str, str]], list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(frozenset(leaves(run.config).items()), []).append(run)
    labels = method_labels([first.config for first, *_ in groups.values()], typed_keys(runs))
    return dict(zip(labels, groups.values(), strict=True))


def entries(groups: Groups) -> list[Entry]:
    """All runs, method by method, as ``FGSM-AT + DER, seed 0``."""
    runs = [(method, run) for method, found in groups.items() for run in found]
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


def by_status(groups: Groups) -> dict[MethodLabel, list[FinishedRun]]:
    """The same groups, with runs that are no result in groups of their own, by their status."""
    found: dict[MethodLabel, list[FinishedRun]] = {}
    for label, runs in groups.items():
        for run in runs:
            found.setdefault(replace(label, status=run.mark()), []).append(run)
    return found


def configs(groups: Groups) -> list[DictConfig]:
    """Configurations of all runs."""
    return [run.config for runs in groups.values() for run in runs]


def write_comparison(groups: Groups, out: Path) -> str:
    """Writes ``FILES`` to ``out``: the comparison, every run, all curves in one figure.

    Returns:
        The comparison as Markdown.
    """
    table = comparison_table(groups)
    out.mkdir(parents=True, exist_ok=True)
    (out / "comparison.md").write_text(table.markdown() + "\n")
    (out / "comparison.csv").write_text(table.csv())
    (out / "runs.csv").write_text(runs_table(groups).csv())
    logs = {label: [run.log for run in runs] for label, runs in by_status(groups).items()}
    save(methods_figure(logs, title=setting(configs(groups))), out / "comparison")
    return table.markdown()


def results_table(runs: Sequence[FinishedRun]) -> Table:
    """One row for each run, checkpoint and image set.

    Accuracies are shares of all images, in percent. Accuracy under the training attack, AAE share
    and delta energies (nats) are means over the last epoch of training.
    """
    trained = (ATTACKED, AAE, DELTA_X, DELTA_XY)
    rows = []
    for run, name in zip(runs, folder_names([run.folder for run in runs]), strict=True):
        means = [run.last_epoch_mean(metric.key) for metric in trained]
        cells = [
            ""
            if mean is None
            else mean_cell([metric.scale * mean], ".1f" if metric.unit == "%" else metric.form)
            for metric, mean in zip(trained, means, strict=True)
        ]
        rows += [
            (
                name,
                checkpoint,
                images,
                str(shares["n"]),
                *(mean_cell([100 * shares[key]]) if key in shares else "" for key in ACCURACIES),
                *(cells if checkpoint == "last" else [""] * len(cells)),
                run.status_at(checkpoint),
            )
            for checkpoint in run.checkpoints
            for images, shares in run.results[checkpoint].items()
            if images != "step"
        ]
    columns = (
        "run",
        "checkpoint",
        "images",
        "n",
        "clean %",
        "FGSM %",
        "PGD %",
        "train adv %",
        "AAE share %",
        "dE(x)",
        "dE(x, y)",
        "status",
    )
    return Table(columns, rows)


def comparison_table(groups: Groups) -> Table:
    """One row for each method and checkpoint, on test images; mean and range over seeds.

    A method has no accuracy if one of its runs collapsed or is not robust: its status says how
    many, and from which step.
    """
    columns = (
        "method",
        "checkpoint",
        "runs",
        "clean %",
        "FGSM %",
        f"{_pgd(groups)} %",
        "AAE share %",
        "status",
        "first alarm at step",
        *COSTS,
    )
    return Table(columns, [row for label, runs in groups.items() for row in _rows(label, runs)])


def runs_table(groups: Groups) -> Table:
    """One row for each run and checkpoint with its accuracies, whether they are a result or not."""
    columns = (
        "method",
        "run",
        "seed",
        "checkpoint",
        "clean %",
        "FGSM %",
        f"{_pgd(groups)} %",
        "AAE share %",
        "status",
        "lost at step",
        "first alarm",
        "alarm at step",
        "alarm in epoch",
        *COSTS,
    )
    rows = [
        (
            str(entry.method),
            entry.place,
            str(entry.run.config.seed),
            checkpoint,
            *(mean_cell([entry.run.percent(checkpoint, name)]) for name in ACCURACIES),
            mean_cell([_aae_share(entry.run)]),
            entry.run.status.kind,
            "" if entry.run.status.step is None else str(entry.run.status.step),
            *_first_alarm(entry.run),
            *_costs([entry.run]),
        )
        for entry in entries(groups)
        for checkpoint in entry.run.checkpoints
    ]
    return Table(columns, rows)


def _rows(label: MethodLabel, runs: Sequence[FinishedRun]) -> list[tuple[str, ...]]:
    shares = [_aae_share(run) for run in runs]
    alarms = [alarm for run in runs for alarm in run.first_alarms]
    has_sentinel = any(run.has_sentinel for run in runs)
    return [
        (
            str(label),
            checkpoint,
            str(len(runs)),
            *_accuracies(runs, checkpoint),
            each_cell(shares) if any(run.mark() for run in runs) else mean_cell(shares),
            _status(runs),
            steps_of_runs_cell(sorted(alarms, key=lambda alarm: alarm[0]), len(runs))
            or ("none" if has_sentinel else NO_SENTINEL),
            *_costs(runs),
        )
        for checkpoint in runs[0].checkpoints
    ]


def _accuracies(runs: Sequence[FinishedRun], checkpoint: str) -> list[str]:
    marks = sorted({run.mark(checkpoint) for run in runs} - {""})
    if marks:
        return [", ".join(marks)] * len(ACCURACIES)
    return [mean_cell([run.percent(checkpoint, name) for run in runs]) for name in ACCURACIES]


def _status(runs: Sequence[FinishedRun]) -> str:
    """``robust``, or ``collapsed at 474, 316 (2 of 3 runs); not robust (1 of 3 runs)``."""
    found = [run.status for run in runs]
    for kind in ("robust", "not logged"):
        if all(status.kind == kind for status in found):
            return kind
    lost = [
        (s.kind if s.step is None else f"{s.kind} at", s.step) for s in found if s.kind != "robust"
    ]
    return steps_of_runs_cell(lost, len(runs))


def _first_alarm(run: FinishedRun) -> tuple[str, str, str]:
    """``CO``, its step, and its epoch, counted from 1."""
    if not run.first_alarms:
        return ("none" if run.has_sentinel else NO_SENTINEL, "", "")
    kind, step = run.first_alarms[0]
    epoch = "" if run.steps is None else str(ceil(step / run.log.steps_per_epoch))
    return kind, str(step), epoch


def _aae_share(run: FinishedRun) -> float | None:
    share = run.last_epoch_mean(AAE.key)
    return None if share is None else AAE.scale * share


def _costs(runs: Sequence[FinishedRun]) -> tuple[str, str]:
    seconds = [run.cost("seconds") for run in runs]
    return (
        mean_cell([run.cost("forward_equivalents") for run in runs]),
        mean_cell([None if s is None else s / 60 for s in seconds]),
    )


def _pgd(groups: Groups) -> str:
    """``PGD-50-10`` if all runs were evaluated with the same attack."""
    names = set()
    for runs in groups.values():
        attack = runs[0].config.evaluation.attacks.get("pgd")
        if attack is not None:
            restarts = attack.get("restarts", 1)
            names.add(f"PGD-{attack.steps}" + (f"-{restarts}" if restarts > 1 else ""))
    return names.pop() if len(names) == 1 else "PGD"
