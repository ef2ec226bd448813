"""Which runs a report compares, their sweeps and training curves, and their environments."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from energy_at.reporting.comparison import Entry, Groups, by_status, configs
from energy_at.reporting.describe import MethodLabel, differences, setting
from energy_at.reporting.document.html import (
    Block,
    Code,
    Gallery,
    Grid,
    Heading,
    Lines,
    Link,
    Paragraph,
    Picture,
    Section,
    where,
)
from energy_at.reporting.figures import method_styles
from energy_at.reporting.figures.training_curves import (
    Training,
    delta_energy_figure,
    epochs_figure,
    steps_figure,
)
from energy_at.reporting.sweeps import sweep_curves
from energy_at.reporting.tables import Table, steps_cell

COLUMNS = 6  # runs that have a column each; of more, those of a method share one
DELTA_ENERGY = "delta_energy"  # file of the paper's figure
PANELS = 4  # runs that the delta-energy figure can hold
DRAWN_BY_STEP = 12  # runs that each have their curves by step; of more, one of each method
UNKNOWN = "not recorded"
TERMS = Paragraph(
    (
        "The logits f(x) of a classifier define the energies E(x) = -logsumexp f(x) and "
        "E(x, y) = -f(x)[y]. dE(x) = E(x) - E(x*) and dE(x, y) = E(x, y) - E(x*, y) are their "
        "changes under attack, in nats; the shift norm is the length of [dE(x), dE(x, y)] (",
        Link("arXiv 2505.22486", "https://arxiv.org/abs/2505.22486"),
        "). An adversarial example is abnormal (AAE) if the attack lowered its loss: dE(x, y) > "
        "dE(x). Status of a run, by its PGD accuracy on held-out images: not robust, if it never "
        "exceeded chance (one-sided binomial test, 1 %); collapsed (catastrophic overfitting, CO), "
        "if from the given step to the end it is below half its best so far, or clean and PGD "
        "accuracy are at chance; overfitted (robust overfitting, RO), if its running mean over "
        "five validations ends at least three points, and four standard errors, below its best; "
        "robust otherwise. The sentinel raised its alarms during training.",
    )
)
DIFFER = "Differences of their configurations (without loggers, progress bar, place of the data):"
AGAINST = (
    "Mean and range over seeds of the runs that are results; a cross is a run that collapsed or is "
    "not robust. Accuracies of the last network, delta energies of the last epoch."
)
BY_RUN = (
    "PGD error on held-out images (left axis) and delta energies on training images (right axis), "
    "each step thin, epoch means thick; triangles: alarms of the sentinel"
)
BY_EPOCH = (
    "Means over each epoch and over seeds (thick), each seed (thin); runs that collapsed, or are "
    "not robust, separately. Vertical lines: onset of CO (dashed) and RO (dotted); triangles: "
    "alarms of the sentinel"
)


def overview(found: Sequence[Entry], failed: Sequence[str] = ()) -> Section:
    with_folder = any(entry.place != str(entry.path) for entry in found)
    rows = [
        {
            "run": entry.place,
            **({"folder": str(entry.path)} if with_folder else {}),
            "method": str(entry.method),
            "seed": str(run.config.seed),
            "steps": "not logged" if run.steps is None else str(run.steps),
            "status": str(run.status),
            "alarms at step": steps_cell(run.log.alarms) or run.without_alarm,
        }
        for entry, run in ((entry, entry.run) for entry in found)
    ]
    lost = where(e.run.status.onsets or e.run.mark() for e in found)
    blocks: list[Block] = [TERMS, Grid("runs", Table.of(rows), lost)]
    if failed:
        jobs = "1 job has" if len(failed) == 1 else f"{len(failed)} jobs have"
        blocks += [Paragraph((f"{jobs} no result:",)), Lines(tuple(failed))]
    return Section("Runs", (*blocks, *_choices(found)))


def sweeps(found: Sequence[Entry], gallery: Gallery) -> list[Section]:
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
    blocks: list[Block] = []
    if logged and len(found) <= PANELS:
        title = setting([entry.run.config for entry in logged])
        figure = delta_energy_figure({str(entry.label): entry.run.log for entry in logged}, title)
        blocks.append(gallery.draw(figure, DELTA_ENERGY, f"{BY_RUN}. {title}."))
    if logged:
        chosen = drawn_by_step(logged)
        blocks += [Heading("By epoch"), _by_epoch(groups, gallery), Heading("By optimizer step")]
        blocks += [_by_step(entry, i, gallery) for i, entry in enumerate(chosen, 1)]
        if len(chosen) < len(logged):
            which = f"The first run of each method and status: {len(chosen)} of {len(logged)}."
            blocks.append(Paragraph((which,)))
    if silent := [entry.place for entry in found if entry.run.steps is None]:
        text = f"No training step was logged in {', '.join(silent)}: use "
        blocks.append(Paragraph((text, Code("logger=csv"), ".")))
    return Section("Training", tuple(blocks))


def drawn_by_step(logged: Sequence[Entry]) -> list[Entry]:
    """All of a few runs; of many the first of each method and status."""
    if len(logged) <= DRAWN_BY_STEP:
        return list(logged)
    first: dict[MethodLabel, Entry] = {}
    for entry in logged:
        first.setdefault(replace(entry.method, status=entry.run.mark()), entry)
    return list(first.values())


def environment(found: Sequence[Entry]) -> Section:
    records = {entry.place: entry.run.folder.record() for entry in found}
    table, marked = _environments(records)
    lines = []
    if marked:
        lines.append(f"The runs differ in {', '.join(table.rows[i][0] for i in sorted(marked))}.")
    elif len(found) > 1:
        lines.append("All runs have the same environment.")
    if dirty := [p for p, r in records.items() if str(r.get("git_commit")).endswith("-dirty")]:
        lines.append(f"Uncommitted changes in the source tree of: {', '.join(dirty)}.")
    blocks: list[Block] = [Paragraph((line,)) for line in lines]
    blocks.append(Grid("environment", table, marked))
    commands: dict[str, list[str]] = {}
    for place, record in records.items():
        commands.setdefault(_command(record.get("command") or []), []).append(place)
    for command, places in commands.items():
        blocks += [Paragraph(("Command of ", Code(", ".join(places)), ":")), Lines((command,))]
    return Section("Environment", tuple(blocks))


def _choices(found: Sequence[Entry]) -> list[Block]:
    if len(found) == 1:
        overrides = found[0].run.folder.overrides()
        if not overrides:
            return [Paragraph(("Choices that differ from the defaults: none recorded.",))]
        return [Paragraph(("Choices that differ from the defaults:",)), Lines(tuple(overrides))]
    columns: dict[str, list[Entry]] = {}
    for entry in found:
        name = entry.place if len(found) <= COLUMNS else str(entry.method)
        columns.setdefault(name, []).append(entry)
    table = differences({name: own[0].run.config for name, own in columns.items()})
    rows = [*_seeds(columns), *table.rows]
    if not rows:
        return [Paragraph(("The runs share one configuration.",))]
    return [Paragraph((DIFFER,)), Grid("differences", Table(table.columns, rows))]


def _seeds(columns: Mapping[str, Sequence[Entry]]) -> list[tuple[str, ...]]:
    """Their row, unless all runs have the same."""
    seeds = [dict.fromkeys(str(entry.run.config.seed) for entry in own) for own in columns.values()]
    cells = [", ".join(own) for own in seeds]
    return [("seed", *cells)] if len(set(cells)) > 1 or any(len(own) > 1 for own in seeds) else []


def _by_epoch(groups: Groups, gallery: Gallery) -> Picture:
    methods = {
        label: [Training(run.log, run.status.onsets) for run in runs if run.steps is not None]
        for label, runs in by_status(groups).items()
    }
    title = setting(configs(groups))
    figure = epochs_figure({label: runs for label, runs in methods.items() if runs}, title)
    return gallery.draw(figure, "figures/epochs", f"{BY_EPOCH}. {title}.")


def _by_step(entry: Entry, index: int, gallery: Gallery) -> Picture:
    run, style = entry.run, method_styles([entry.method])[entry.method]
    title = f"{entry.label}: {setting([run.config])}"
    figure = steps_figure(Training(run.log, run.status.onsets), style, title)
    alarms = "; ".join(f"{kind} alarm at step {step}" for kind, step in run.log.alarms)
    caption = f"{title}. Folder {entry.path}. Range and mean of steps (thin), epoch means (thick)"
    return gallery.draw(
        figure, f"figures/steps_{index}", f"{caption}; {run.status}; {alarms or 'no alarm'}."
    )


def _environments(records: Mapping[str, Mapping[str, Any]]) -> tuple[Table, frozenset[int]]:
    """One column for each environment, and the rows in which they differ."""
    shared: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for place, record in records.items():
        facts = {k: v for k, v in record.items() if k not in ("command", "overrides", "packages")}
        facts |= record.get("packages") or {}
        texts = {key: UNKNOWN if value is None else str(value) for key, value in facts.items()}
        shared.setdefault(tuple(texts.items()), []).append(place)
    columns = [dict(facts) for facts in shared]
    keys = dict.fromkeys(key for facts in columns for key in facts)
    rows = [(key, *(facts.get(key, UNKNOWN) for facts in columns)) for key in keys]
    heads = ["all runs"] if len(shared) == 1 else [", ".join(p) for p in shared.values()]
    return Table(("", *heads), rows), where(len(set(row[1:])) > 1 for row in rows)


def _command(words: Sequence[str]) -> str:
    """``python -m energy_at.train ...``, as far as it is recorded."""
    if not words:
        return UNKNOWN
    first, *rest = map(str, words)
    program = f"python -m energy_at.{Path(first).stem}" if first.endswith(".py") else first
    return f"{program} {shlex.join(rest)}".rstrip()
