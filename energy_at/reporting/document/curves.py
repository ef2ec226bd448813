"""Curves of the training, energies and samples: the sections that are pictures."""

from collections.abc import Mapping, Sequence

from energy_at.reporting.comparison import configs, parted
from energy_at.reporting.describe import setting
from energy_at.reporting.document.accuracy import not_measured
from energy_at.reporting.document.artifacts import Analysis, analyses, samples
from energy_at.reporting.document.html import (
    Block,
    Code,
    Grid,
    Heading,
    Paragraph,
    Picture,
    Section,
)
from energy_at.reporting.document.runs import Entry, Gallery
from energy_at.reporting.figures.style import delta_energy_figure, method_styles
from energy_at.reporting.figures.training_curves import Training, epochs_figure, steps_figure
from energy_at.reporting.finished_run import FinishedRun
from energy_at.reporting.tables import Table

DELTA_ENERGY = "delta_energy"  # file of the paper's figure, beside the tables
PANELS = 4  # runs that the delta-energy figure can hold side by side
ALONE = 12  # runs that each have their curves by step; of more, one of each method
ROWS = 60  # of a table of an analysis
GRIDS = 12  # of samples of a run


def curves(
    groups: Mapping[str, list[FinishedRun]], found: Sequence[Entry], gallery: Gallery
) -> Section:
    """What was logged, by epoch and by step, with every onset of CO and RO."""
    logged = [entry for entry in found if "train/loss" in entry.run.log]
    if not logged:
        return Section("Training", (_without_log(found),))
    chosen = drawn_by_step(logged)
    return Section(
        "Training",
        (
            *([delta_energies(logged, gallery)] if len(found) <= PANELS else []),
            Heading("By epoch"),
            _by_epoch(dict(groups), gallery),
            Heading("By optimizer step"),
            *(_by_step(entry, i, gallery) for i, entry in enumerate(chosen, 1)),
            *_left_out(found, logged, chosen),
        ),
    )


def energies(found: Sequence[Entry], gallery: Gallery) -> Section:
    """Tables and figures of the analyses of the runs."""
    all_ = [(entry, one) for entry in found for one in analyses(entry.path)]
    blocks = [
        block
        for i, (entry, one) in enumerate(all_, 1)
        for block in _analysis(entry, one, i, gallery)
    ]
    missing = not_measured(found, [entry for entry, _ in all_], "analyse")
    return Section("Energy analysis", (*blocks, *missing))


def grids(found: Sequence[Entry], gallery: Gallery) -> list[Section]:
    """Generated images, where there are any."""
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
    figure = delta_energy_figure({e.label: e.run.log for e in found}, title)
    caption = (
        "PGD error on held-out images (left axis) and delta energies on training images "
        "(right axis), each step thin, epoch means thick; triangles: alarms of the sentinel"
    )
    return gallery.draw(figure, DELTA_ENERGY, f"{caption}. {title}.")


def _by_epoch(groups: dict[str, list[FinishedRun]], gallery: Gallery) -> Picture:
    methods = {
        name: [Training(run.log, run.onsets) for run in runs if "train/loss" in run.log]
        for name, runs in parted(groups).items()
    }
    title = setting(configs(groups))
    figure = epochs_figure({name: runs for name, runs in methods.items() if runs}, title)
    caption = (
        "Means over each epoch and over seeds (thick), each seed (thin); collapsed runs, and those "
        "that have not learned, apart. Vertical lines: onset of CO (dashed) and RO (dotted); "
        "triangles: alarms of the sentinel"
    )
    return gallery.draw(figure, "figures/epochs", f"{caption}. {title}.")


def _by_step(entry: Entry, index: int, gallery: Gallery) -> Picture:
    run, style = entry.run, method_styles([entry.method])[entry.method]
    title = f"{entry.label}: {setting([run.config])}"
    figure = steps_figure(Training(run.log, run.onsets), style, title)
    said = [f"{name} from step {step}" for name, step in run.onsets.items()]
    marks = "; ".join(said or ["no onset of CO or RO"])
    alarms = "; ".join(f"{kind} alarm at step {step}" for kind, step in run.log.alarms)
    caption = f"{title}. Folder {entry.path}. Range and mean of steps (thin), epoch means (thick)"
    return gallery.draw(
        figure, f"figures/steps_{index}", f"{caption}; {marks}; {alarms or 'no alarm'}."
    )


def drawn_by_step(logged: Sequence[Entry]) -> list[Entry]:
    """All of a few runs; of many the first of each method, sound and otherwise."""
    if len(logged) <= ALONE:
        return list(logged)
    first: dict[tuple[str, str], Entry] = {}
    for entry in logged:
        first.setdefault((entry.method, entry.run.mark()), entry)
    return list(first.values())


def _left_out(
    found: Sequence[Entry], logged: Sequence[Entry], chosen: Sequence[Entry]
) -> list[Block]:
    said: list[Block] = []
    if len(chosen) < len(logged):
        line = f"The first run of each method, sound and otherwise: {len(chosen)} of {len(logged)}."
        said.append(Paragraph((line,)))
    silent = [entry for entry in found if entry not in logged]
    return [*said, *([_without_log(silent)] if silent else [])]


def _without_log(found: Sequence[Entry]) -> Paragraph:
    names = ", ".join(entry.place for entry in found)
    return Paragraph((f"No training step was logged in {names}: ", Code("logger=csv"), " does."))


def _analysis(entry: Entry, one: Analysis, index: int, gallery: Gallery) -> list[Block]:
    blocks: list[Block] = [Heading(f"{entry.label}: {one.name}")]
    if one.table:
        shown = Table(one.table.columns, one.table.rows[:ROWS])
        blocks.append(Grid(f"{entry.label}: {one.name}", shown))
        if len(one.table.rows) > ROWS:
            blocks.append(Paragraph((f"The first {ROWS} of {len(one.table.rows)} rows.",)))
    return blocks + [
        gallery.copy(path, f"figures/analysis_{index}_{j}", f"{entry.label}: {path.stem}")
        for j, path in enumerate(one.pictures, 1)
    ]
