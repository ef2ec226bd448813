"""Training curves, sweeps, energies and samples: the sections made of pictures."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from energy_at.reporting.comparison import Entry, Groups, by_status, configs
from energy_at.reporting.describe import MethodLabel, setting
from energy_at.reporting.document.accuracy import missing
from energy_at.reporting.document.html import (
    Block,
    Code,
    Gallery,
    Grid,
    Heading,
    Paragraph,
    Picture,
    Section,
)
from energy_at.reporting.figures import method_styles
from energy_at.reporting.figures.training_curves import (
    Training,
    delta_energy_figure,
    epochs_figure,
    steps_figure,
)
from energy_at.reporting.sweep_curves import sweep_curves
from energy_at.reporting.tables import Table

DELTA_ENERGY = "delta_energy"  # file of the paper's figure
PANELS = 4  # runs that the delta-energy figure can hold
DRAWN_BY_STEP = 12  # runs that each have their curves by step; of more, one of each method
ROWS = 60  # of a table of an analysis
GRIDS = 12  # of samples of a run
AGAINST = (
    "Mean and range over seeds of the runs that are results; a cross is a run that collapsed or is "
    "not robust. Accuracies of the last network, delta energies of the last epoch."
)


@dataclass(frozen=True)
class Analysis:
    """Table and figures of the energies of a run."""

    name: str
    table: Table | None
    pictures: tuple[Path, ...]


def against(found: Sequence[Entry], gallery: Gallery) -> list[Section]:
    """A section for each swept number, such as ``reg.weight``."""
    return [
        Section(
            f"Against {one.key}",
            (
                Paragraph((one.best(),)),
                Grid(f"against {one.key}", one.table()),
                gallery.draw(one.figure(), f"figures/{one.stem}", AGAINST),
            ),
        )
        for one in sweep_curves([entry.run for entry in found])
    ]


def training(groups: Groups, found: Sequence[Entry], gallery: Gallery) -> Section:
    """What was logged, by epoch and by step, with every onset of CO and RO."""
    logged = [entry for entry in found if entry.run.steps is not None]
    silent = [entry for entry in found if entry.run.steps is None]
    names = ", ".join(entry.place for entry in silent)
    no_log = Paragraph((f"No training step was logged in {names}: use ", Code("logger=csv"), "."))
    if not logged:
        return Section("Training", (no_log,))
    chosen = drawn_by_step(logged)
    blocks: list[Block] = [delta_energies(logged, gallery)] if len(found) <= PANELS else []
    blocks += [Heading("By epoch"), _by_epoch(groups, gallery), Heading("By optimizer step")]
    blocks += [_by_step(entry, i, gallery) for i, entry in enumerate(chosen, 1)]
    if len(chosen) < len(logged):
        which = f"The first run of each method and status: {len(chosen)} of {len(logged)}."
        blocks.append(Paragraph((which,)))
    return Section("Training", (*blocks, *([no_log] if silent else [])))


def energies(found: Sequence[Entry], gallery: Gallery) -> Section:
    """Tables and figures of the analyses of the runs."""
    every = [(entry, one) for entry in found for one in analyses(entry.path)]
    blocks: list[Block] = []
    for i, (entry, one) in enumerate(every, 1):
        title = f"{entry.label}: {one.name}"
        blocks.append(Heading(title))
        if one.table:
            blocks.append(Grid(title, replace(one.table, rows=one.table.rows[:ROWS])))
            if len(one.table.rows) > ROWS:
                blocks.append(Paragraph((f"The first {ROWS} of {len(one.table.rows)} rows.",)))
        blocks += [
            gallery.copy(path, f"figures/analysis_{i}_{j}", f"{entry.label}: {path.stem}")
            for j, path in enumerate(one.pictures, 1)
        ]
    blocks += missing(found, [entry for entry, _ in every], "analyse")
    return Section("Energy analysis", tuple(blocks))


def grids(found: Sequence[Entry], gallery: Gallery) -> list[Section]:
    """Generated images, if there are any."""
    blocks: list[Block] = []
    for i, entry in enumerate(found, 1):
        images = samples(entry.path)
        for j, path in enumerate(images[:GRIDS], 1):
            name = path.relative_to(entry.path / "samples").with_suffix("").as_posix()
            caption = f"{entry.label}: {name}"
            blocks.append(gallery.copy(path, f"figures/samples_{i}_{j}", caption))
        if len(images) > GRIDS:
            more = f"{len(images) - GRIDS} more images of {entry.label} in "
            blocks.append(Paragraph((more, Code(str(entry.path / "samples")))))
    return [Section("Samples", tuple(blocks))] if blocks else []


def delta_energies(found: Sequence[Entry], gallery: Gallery) -> Picture:
    """The figure of the paper, one panel for each run."""
    title = setting([entry.run.config for entry in found])
    figure = delta_energy_figure({str(entry.label): entry.run.log for entry in found}, title)
    caption = (
        "PGD error on held-out images (left axis) and delta energies on training images "
        "(right axis), each step thin, epoch means thick; triangles: alarms of the sentinel"
    )
    return gallery.draw(figure, DELTA_ENERGY, f"{caption}. {title}.")


def drawn_by_step(logged: Sequence[Entry]) -> list[Entry]:
    """All of a few runs; of many the first of each method and status."""
    if len(logged) <= DRAWN_BY_STEP:
        return list(logged)
    first: dict[MethodLabel, Entry] = {}
    for entry in logged:
        first.setdefault(replace(entry.method, status=entry.run.mark()), entry)
    return list(first.values())


def analyses(run: Path) -> list[Analysis]:
    """Analyses in a run folder, by name."""
    # a hidden folder is an analysis that is still being written
    folders = sorted(path for path in run.glob("analysis/[!.]*") if path.is_dir())
    found = [
        Analysis(f.name, _table(f / "table.csv"), tuple(sorted(f.glob("*.png")))) for f in folders
    ]
    return [analysis for analysis in found if analysis.table or analysis.pictures]


def samples(run: Path) -> tuple[Path, ...]:
    """Figures of generated images, by path; those of single classes are too many for a report."""
    found = sorted((run / "samples").glob("**/*.png"))
    left_out = {"classes", "wandb"}  # W&B keeps copies of what was sent to it
    return tuple(path for path in found if left_out.isdisjoint(path.relative_to(run).parts))


def _by_epoch(groups: Groups, gallery: Gallery) -> Picture:
    methods = {
        label: [Training(run.log, run.status.onsets) for run in runs if run.steps is not None]
        for label, runs in by_status(groups).items()
    }
    title = setting(configs(groups))
    figure = epochs_figure({label: runs for label, runs in methods.items() if runs}, title)
    caption = (
        "Means over each epoch and over seeds (thick), each seed (thin); runs that collapsed, or "
        "are not robust, separately. Vertical lines: onset of CO (dashed) and RO (dotted); "
        "triangles: alarms of the sentinel"
    )
    return gallery.draw(figure, "figures/epochs", f"{caption}. {title}.")


def _by_step(entry: Entry, index: int, gallery: Gallery) -> Picture:
    run, style = entry.run, method_styles([entry.method])[entry.method]
    title = f"{entry.label}: {setting([run.config])}"
    figure = steps_figure(Training(run.log, run.status.onsets), style, title)
    alarms = "; ".join(f"{kind} alarm at step {step}" for kind, step in run.log.alarms)
    caption = f"{title}. Folder {entry.path}. Range and mean of steps (thin), epoch means (thick)"
    return gallery.draw(
        figure, f"figures/steps_{index}", f"{caption}; {run.status}; {alarms or 'no alarm'}."
    )


def _table(file: Path) -> Table | None:
    """Rows as wide as their header; ``None`` without a file."""
    if not file.is_file():
        return None
    with file.open(newline="") as lines:
        header, *rows = list(csv.reader(lines)) or [[]]
    width = len(header)
    cells = [tuple([*row, *[""] * width][:width]) for row in rows if row]
    return Table(tuple(header), cells) if header else None
