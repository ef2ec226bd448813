"""What the runs' evaluations, analyses and samples found: accuracies, checks, energies, images."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from energy_at.core.files import read_json
from energy_at.reporting.comparison import Entry, by_method, comparison_table, results_table
from energy_at.reporting.describe import NORM_LABELS
from energy_at.reporting.document.blocks import Block, Code, Grid, Heading, copy, where
from energy_at.reporting.tables import Table

WARNING = "warning"
RESULTS = {True: "pass", False: WARNING, None: "not run"}
ROWS = 60  # of a table of an analysis
GRIDS = 12  # of samples of a run
LAST_EPOCH = (
    "Accuracy under the training attack (train adv), AAE share and delta energies (nats) are means "
    "over the last epoch of training."
)
ON_TEST = (
    "Test images; mean and range over seeds. Runs that collapsed, or are not robust, are never "
    "averaged."
)


@dataclass(frozen=True)
class Evaluation:
    """One strong evaluation of a run; ``radii`` holds each radius and its accuracies by attack."""

    name: str
    network: str
    images: str
    norm: str
    radii: Sequence[tuple[str, dict[str, str]]]
    checks: tuple[tuple[str, ...], ...]  # result, name and finding; the meaning unless it passed
    pictures: tuple[Path, ...]


Evaluations = Sequence[tuple[Entry, Evaluation]]


def evaluations(run: Path) -> list[Evaluation]:
    """Strong evaluations of a run folder, by name; a damaged one raises ``ValueError``."""
    return [_evaluation(file) for file in sorted(run.glob("evaluation/*/evaluation.json"))]


def accuracies(found: Sequence[Entry], strong: Evaluations, out: Path) -> Iterator[Block]:
    yield ON_TEST
    lost = where(
        any(run.is_marked for run in runs)
        for runs in by_method(found).values()
        for _ in runs[0].checkpoints
    )
    yield Grid("comparison of methods", comparison_table(found), lost)
    yield Heading("Every checkpoint")
    yield LAST_EPOCH
    marks = where(e.run.mark(checkpoint) for e in found for checkpoint, *_ in e.run.evaluated)
    yield Grid("every checkpoint", results_table([entry.run for entry in found]), marks)
    yield Heading("Strong evaluation")
    if strong:
        yield "Accuracy in percent with its 95 % interval (Wilson)."
        yield _strong_grid(strong)
    yield from missing(found, [entry for entry, _ in strong], "evaluate")
    for i, (entry, one) in enumerate(strong, 1):
        for j, path in enumerate(one.pictures, 1):
            drawn = "accuracy against eps" if path.stem == "accuracy" else path.stem
            caption = f"{entry.label}, {one.name}: {drawn}, {one.norm}, {one.images}"
            yield copy(out, path, f"figures/evaluation_{i}_{j}", caption)


def checks(found: Sequence[Entry], strong: Evaluations) -> Iterator[Block]:
    columns = ("run", "evaluation", "network", "result", "check", "finding", "meaning")
    rows = [(e.place, one.name, one.network, *check) for e, one in strong for check in one.checks]
    if rows:
        failed = where(check[0] == WARNING for _, one in strong for check in one.checks)
        yield Grid("checks", Table(columns, rows), failed)
    yield from missing(found, [entry for entry, _ in strong], "evaluate")


def energies(found: Sequence[Entry], out: Path) -> Iterator[Block]:
    every = [(entry, *analysis) for entry in found for analysis in analyses(entry.path)]
    for i, (entry, name, table, pictures) in enumerate(every, 1):
        title = f"{entry.label}: {name}"
        yield Heading(title)
        if table:
            yield Grid(title, replace(table, rows=table.rows[:ROWS]))
            if len(table.rows) > ROWS:
                yield f"The first {ROWS} of {len(table.rows)} rows."
        for j, path in enumerate(pictures, 1):
            caption = f"{entry.label}: {path.stem}"
            yield copy(out, path, f"figures/analysis_{i}_{j}", caption)
    yield from missing(found, [entry for entry, *_ in every], "analyse")


def grids(found: Sequence[Entry], out: Path) -> Iterator[Block]:
    for i, entry in enumerate(found, 1):
        images, folder = samples(entry.path), entry.path / "samples"
        for j, path in enumerate(images[:GRIDS], 1):
            caption = f"{entry.label}: {path.relative_to(folder).with_suffix('').as_posix()}"
            yield copy(out, path, f"figures/samples_{i}_{j}", caption)
        if len(images) > GRIDS:
            more = f"{len(images) - GRIDS} more images of {entry.label} in "
            yield (more, Code(str(folder)))


def analyses(run: Path) -> list[tuple[str, Table | None, list[Path]]]:
    """Name, table and figures of each analysis in a run folder, by name."""
    found = []
    for folder in sorted(run.glob("analysis/[!.]*")):  # a hidden one is still being written
        table, pictures = None, sorted(folder.glob("*.png"))
        if (folder / "table.csv").is_file():
            header, *rows = map(tuple, csv.reader((folder / "table.csv").read_text().splitlines()))
            table = Table(header, rows)
        if table or pictures:
            found.append((folder.name, table, pictures))
    return found


def samples(run: Path) -> tuple[Path, ...]:
    """Figures of generated images, by path; those of single classes are too many for a report."""
    found = sorted((run / "samples").glob("**/*.png"))
    left_out = {"classes", "wandb"}  # W&B keeps copies of what was sent to it
    return tuple(path for path in found if left_out.isdisjoint(path.relative_to(run).parts))


def missing(found: Sequence[Entry], having: Sequence[Entry], command: str) -> Iterator[Block]:
    """One line for the runs that lack something, with the command that produces it."""
    if lacking := [entry for entry in found if entry not in having]:
        which = "" if len(lacking) == len(found) else f" for {', '.join(e.place for e in lacking)}"
        run = str(lacking[0].path) if len(lacking) == 1 else "FOLDER"
        yield (f"missing{which}: ", Code(f"python -m energy_at.{command} run={run}"))


def _strong_grid(strong: Evaluations) -> Grid:
    every = [(entry, one, eps, cells) for entry, one in strong for eps, cells in one.radii]
    attacks = list(dict.fromkeys(attack for *_, cells in every for attack in cells))
    rows = [
        {
            "run": entry.place,
            "method": str(entry.method),
            "status": entry.run.status_at(one.network),
            "evaluation": one.name,
            "network": one.network,
            "images": one.images,
            "eps": f"{one.norm} {eps}",
            **{f"{attack} %": cells.get(attack, "") for attack in attacks},
        }
        for entry, one, eps, cells in every
    ]
    marks = where(entry.run.mark(one.network) for entry, one, *_ in every)
    return Grid("strong evaluation", Table.of(rows), marks)


def _evaluation(file: Path) -> Evaluation:
    content = read_json(file)
    with suppress(KeyError, TypeError, AttributeError, ValueError):
        checks = [
            (
                RESULTS[check["passed"]],
                str(check["name"]),
                str(check["finding"]),
                "" if check["passed"] else str(check["meaning"]),
            )
            for check in content["checks"]
        ]
        checks += [("not run", "left out", str(line), "") for line in content["left_out"]]
        return Evaluation(
            file.parent.name,
            str(content["network"]["which"] or "weights"),
            _images(content["dataset"]),
            NORM_LABELS[content["norm"]],
            _by_radius(content["accuracies"]),
            tuple(checks),
            tuple(sorted(file.parent.glob("*.png"))),
        )
    raise ValueError(f"{file} is damaged: it holds no evaluation")


def _images(dataset: dict[str, Any]) -> str:
    """``cifar10 test, 1,000 of 10,000``."""
    count, of = int(dataset["images"]), int(dataset["of"])
    some = f"{count:,}" if count == of else f"{count:,} of {of:,}"
    return f"{dataset['name']} {dataset['split']}, {some}"


def _by_radius(rows: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, str]]]:
    """Accuracies with their intervals by attack, at each radius in turn; the clean one at all."""
    cells: dict[tuple[float, str], dict[str, str]] = {}
    for row in rows:
        mean, low, high = (100 * float(row[key]) for key in ("accuracy", "low", "high"))
        at = cells.setdefault((float(row["eps"]), str(row["eps_text"])), {})
        at[str(row["label"])] = f"{mean:.1f} [{low:.1f}, {high:.1f}]"
    clean = next((at for (eps, _), at in cells.items() if eps == 0), {})
    radii = [(text, clean | at) for (eps, text), at in sorted(cells.items()) if eps > 0]
    return radii or [("0", clean)]
