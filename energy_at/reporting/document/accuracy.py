"""Robust accuracy: checkpoints, strong evaluations, and checks for gradient masking."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from energy_at.core.files import read_json
from energy_at.reporting.comparison import Entry, Groups, comparison_table, results_table
from energy_at.reporting.document.html import (
    Block,
    Code,
    Gallery,
    Grid,
    Heading,
    Paragraph,
    Section,
)
from energy_at.reporting.tables import Table

WARNING = "warning"
RESULTS = {True: "pass", False: WARNING, None: "not run"}
LAST_EPOCH = (
    "Accuracy under the training attack (train adv), AAE share and delta energies (nats) are means "
    "over the last epoch of training."
)
ON_TEST = (
    "Test images; mean and range over seeds. Runs that collapsed, or are not robust, are never "
    "averaged."
)


@dataclass(frozen=True)
class Accuracy:
    """Robust accuracy with its 95 % interval, as text."""

    attack: str
    eps: float
    eps_text: str
    text: str


@dataclass(frozen=True)
class Check:
    """Result of a check for gradient masking; its meaning unless it passed."""

    name: str
    result: str
    finding: str
    meaning: str


@dataclass(frozen=True)
class Evaluation:
    """One strong evaluation of a run."""

    name: str
    network: str
    images: str
    norm: str
    accuracies: tuple[Accuracy, ...]
    checks: tuple[Check, ...]
    pictures: tuple[Path, ...]

    def by_radius(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Accuracies by attack, for each radius in turn; the clean ones in all."""
        clean = {a.attack: a.text for a in self.accuracies if a.eps == 0}
        radii = {a.eps: a.eps_text for a in self.accuracies if a.eps > 0} or {0.0: "0"}
        for eps, text in sorted(radii.items()):
            yield text, clean | {a.attack: a.text for a in self.accuracies if a.eps == eps}


Evaluations = Sequence[tuple[Entry, Evaluation]]


def evaluations_of(found: Sequence[Entry]) -> list[tuple[Entry, Evaluation]]:
    """Every strong evaluation with its run.

    Raises:
        ValueError: if a file of one is damaged.
    """
    return [(entry, evaluation) for entry in found for evaluation in evaluations(entry.path)]


def evaluations(run: Path) -> list[Evaluation]:
    """Strong evaluations of a run folder, by name.

    Raises:
        ValueError: if a file of one is damaged.
    """
    return [_evaluation(file) for file in sorted(run.glob("evaluation/*/evaluation.json"))]


def accuracies(
    groups: Groups, found: Sequence[Entry], strong: Evaluations, gallery: Gallery
) -> Section:
    """The comparison, every checkpoint, and the strong evaluations."""
    methods = comparison_table(groups)
    lost = [
        any(run.status.onsets or run.mark() for run in runs)
        for runs in groups.values()
        for _ in runs[0].checkpoints
    ]
    checkpoints = results_table([entry.run for entry in found])
    marks = [
        entry.run.mark(checkpoint)
        for entry in found
        for checkpoint in entry.run.checkpoints
        for images in entry.run.results[checkpoint]
        if images != "step"
    ]
    pictures = [
        gallery.copy(path, f"figures/evaluation_{i}_{j}", _caption(entry, one, path))
        for i, (entry, one) in enumerate(strong, 1)
        for j, path in enumerate(one.pictures, 1)
    ]
    intervals: list[Block] = [Paragraph(("Accuracy in percent with its 95 % interval (Wilson).",))]
    return Section(
        "Robust accuracy",
        (
            Paragraph((ON_TEST,)),
            Grid("comparison of methods", methods, _where(lost)),
            Heading("Every checkpoint"),
            Paragraph((LAST_EPOCH,)),
            Grid("every checkpoint", checkpoints, _where(marks)),
            Heading("Strong evaluation"),
            *([*intervals, _strong_grid(strong)] if strong else []),
            *missing(found, [entry for entry, _ in strong], "evaluate"),
            *pictures,
        ),
    )


def checks(found: Sequence[Entry], strong: Evaluations) -> Section:
    """Results of the checks for gradient masking."""
    columns = ("run", "evaluation", "network", "result", "check", "finding", "meaning")
    every = [(entry, one, check) for entry, one in strong for check in one.checks]
    rows = [
        (entry.place, one.name, one.network, check.result, check.name, check.finding, check.meaning)
        for entry, one, check in every
    ]
    failed = _where([check.result == WARNING for _, _, check in every])
    grid = [Grid("checks", Table(columns, rows), failed)] if rows else []
    return Section("Checks", (*grid, *missing(found, [e for e, _ in strong], "evaluate")))


def missing(found: Sequence[Entry], having: Sequence[Entry], command: str) -> list[Block]:
    """One line for the runs that lack something, with the command that produces it."""
    lacking = [entry for entry in found if entry not in having]
    if not lacking:
        return []
    which = "" if len(lacking) == len(found) else f" for {', '.join(e.place for e in lacking)}"
    run = str(lacking[0].path) if len(lacking) == 1 else "FOLDER"
    return [Paragraph((f"missing{which}: ", Code(f"python -m energy_at.{command} run={run}")))]


def _where(flags: Sequence[object]) -> frozenset[int]:
    return frozenset(i for i, flag in enumerate(flags) if flag)


def _caption(entry: Entry, one: Evaluation, path: Path) -> str:
    drawn = "accuracy against eps" if path.stem in ("accuracy", "curve") else path.stem
    return f"{entry.label}, {one.name}: {drawn}, {one.norm}, {one.images}"


def _strong_grid(strong: Evaluations) -> Grid:
    attacks = list(dict.fromkeys(a.attack for _, one in strong for a in one.accuracies))
    found = [(entry, one, eps, cells) for entry, one in strong for eps, cells in one.by_radius()]
    marks = [entry.run.mark(one.network) for entry, one, *_ in found]
    rows = [
        (
            entry.place,
            str(entry.method),
            entry.run.status_at(one.network),
            one.name,
            one.network,
            one.images,
            f"{one.norm} {eps}",
            *(cells.get(attack, "") for attack in attacks),
        )
        for entry, one, eps, cells in found
    ]
    columns = ("run", "method", "status", "evaluation", "network", "images", "eps")
    table = Table((*columns, *(f"{attack} %" for attack in attacks)), rows)
    return Grid("strong evaluation", table, _where(marks))


def _evaluation(file: Path) -> Evaluation:
    content = read_json(file)
    with suppress(KeyError, TypeError, AttributeError, ValueError):
        left_out = [Check("left out", RESULTS[None], str(line), "") for line in content["left_out"]]
        return Evaluation(
            file.parent.name,
            str(content["network"]["which"] or "weights"),
            _images(content["dataset"]),
            str(content["norm"]),
            tuple(map(_accuracy, content["accuracies"])),
            (*map(_check, content["checks"]), *left_out),
            tuple(sorted(file.parent.glob("*.png"))),
        )
    raise ValueError(f"{file} is damaged: it holds no evaluation")


def _images(dataset: dict[str, Any]) -> str:
    """``cifar10 test, 1,000 of 10,000``."""
    count, of = int(dataset["images"]), int(dataset["of"])
    some = f"{count:,}" if count == of else f"{count:,} of {of:,}"
    return f"{dataset['name']} {dataset['split']}, {some}"


def _accuracy(entry: dict[str, Any]) -> Accuracy:
    mean, low, high = (100 * float(entry[key]) for key in ("accuracy", "low", "high"))
    text = f"{mean:.1f} [{low:.1f}, {high:.1f}]"
    return Accuracy(str(entry["label"]), float(entry["eps"]), str(entry["eps_text"]), text)


def _check(entry: dict[str, Any]) -> Check:
    passed, meaning = entry["passed"], str(entry["meaning"])
    return Check(
        str(entry["name"]), RESULTS[passed], str(entry["finding"]), "" if passed else meaning
    )
