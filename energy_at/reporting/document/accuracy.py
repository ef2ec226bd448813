"""Robust accuracy, and the checks that stand behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from energy_at.reporting.comparison import comparison_table
from energy_at.reporting.document.artifacts import WARNING, Evaluation, evaluations
from energy_at.reporting.document.html import Block, Code, Grid, Heading, Paragraph, Section
from energy_at.reporting.document.runs import Entry, Gallery
from energy_at.reporting.finished_run import FinishedRun
from energy_at.reporting.tables import Table, results_table

LAST_EPOCH = (
    "Accuracy under the training attack (train adv), AAE share and delta "
    "energies (nats) are means over the last epoch of training."
)

ON_TEST = (
    "Test images; mean and range over seeds. A run that collapsed, or has not learned, is never "
    "averaged."
)
Found = Sequence[tuple[Entry, Evaluation]]


def strong_evaluations(found: Sequence[Entry]) -> list[tuple[Entry, Evaluation]]:
    """Every evaluation with its run."""
    return [(entry, one) for entry in found for one in evaluations(entry.path)]


def accuracies(
    groups: Mapping[str, list[FinishedRun]], found: Sequence[Entry], strong: Found, gallery: Gallery
) -> Section:
    """The comparison, every checkpoint, and the strong evaluation where there is one."""
    table = comparison_table(dict(groups))
    fate = table.columns.index("collapse at step")
    lost = frozenset(
        i for i, row in enumerate(table.rows) if row[fate] not in ("none", "not logged")
    )
    return Section(
        "Robust accuracy",
        (
            Paragraph((ON_TEST,)),
            Grid("comparison of methods", table, lost),
            Heading("Every checkpoint"),
            Paragraph((LAST_EPOCH,)),
            _checkpoints(found),
            Heading("Strong evaluation"),
            *_strong(found, strong, gallery),
        ),
    )  # fmt: skip


def checks(found: Sequence[Entry], strong: Found) -> Section:
    """What the checks for gradient masking have found."""
    rows: list[tuple[str, ...]] = [
        (entry.place, one.name, one.network, check.verdict, check.name, check.finding,
         check.meaning)
        for entry, one in strong
        for check in one.checks
    ]  # fmt: skip
    failed = frozenset(i for i, row in enumerate(rows) if row[3] == WARNING)
    columns = ("run", "evaluation", "network", "result", "check", "finding", "meaning")
    grid = [Grid("checks", Table(columns, rows), failed)] if rows else []
    return Section("Checks", (*grid, *not_measured(found, [e for e, _ in strong], "evaluate")))


def not_measured(found: Sequence[Entry], measured: Sequence[Entry], command: str) -> list[Block]:
    """One line for the runs that lack something, with the command that measures it."""
    missing = [entry for entry in found if entry not in measured]
    if not missing:
        return []
    which = "" if len(missing) == len(found) else f" for {', '.join(e.place for e in missing)}"
    run = str(missing[0].path) if len(missing) == 1 else "FOLDER"
    return [Paragraph((f"not measured{which}: ", Code(f"python -m energy_at.{command} run={run}")))]


def _checkpoints(found: Sequence[Entry]) -> Grid:
    table = results_table([entry.run.folder for entry in found])
    runs = {entry.place: entry.run for entry in found}
    marks = [runs[place].mark(which) for place, which, *_ in table.rows]
    rows = [(_marked(row[0], mark), *row[1:]) for row, mark in zip(table.rows, marks, strict=True)]
    marked = frozenset(i for i, mark in enumerate(marks) if mark)
    return Grid("every checkpoint", replace(table, rows=rows), marked)


def _strong(found: Sequence[Entry], strong: Found, gallery: Gallery) -> list[Block]:
    grid: list[Block] = []
    if strong:
        grid = [
            Paragraph(("Accuracy in percent with its 95 % interval (Wilson).",)),
            _strong_grid(strong),
        ]
    pictures = [
        gallery.copy(path, f"figures/evaluation_{i}_{j}", _caption(entry, one, path))
        for i, (entry, one) in enumerate(strong, 1)
        for j, path in enumerate(one.pictures, 1)
    ]
    return [*grid, *not_measured(found, [e for e, _ in strong], "evaluate"), *pictures]


def _caption(entry: Entry, one: Evaluation, path: Path) -> str:
    drawn = "accuracy against eps" if path.stem in ("accuracy", "curve") else path.stem
    return f"{entry.label}, {one.name}: {drawn}, {one.norm}, {one.images}"


def _strong_grid(strong: Found) -> Grid:
    attacks = list(dict.fromkeys(a.attack for _, one in strong for a in one.accuracies))
    found = [
        (_marked(entry.place, mark), bool(mark), entry, one, eps, cells)
        for entry, one in strong
        for mark in [entry.run.mark(one.network)]
        for eps, cells in one.by_radius()
    ]
    rows = [
        (run, entry.method, one.name, one.network, one.images, f"{one.norm} {eps}",
         *(cells.get(attack, "") for attack in attacks))
        for run, _, entry, one, eps, cells in found
    ]  # fmt: skip
    columns = ("run", "method", "evaluation", "network", "images", "eps")
    table = Table((*columns, *(f"{attack} %" for attack in attacks)), rows)
    return Grid("strong evaluation", table, frozenset(i for i, row in enumerate(found) if row[1]))


def _marked(run: str, mark: str) -> str:
    return f"{run} ({mark})" if mark else run
