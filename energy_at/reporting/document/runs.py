"""Which runs a report compares, their sweeps and training curves, and their environments."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from energy_at.reporting.comparison import Entry, by_status, configs
from energy_at.reporting.describe import by_key, differences, setting
from energy_at.reporting.document.blocks import (
    Block,
    Code,
    Grid,
    Heading,
    Link,
    Picture,
    draw,
    where,
)
from energy_at.reporting.figures import method_styles
from energy_at.reporting.figures.training_curves import (
    PANELS,
    delta_energy_figure,
    methods_figure,
    steps_figure,
)
from energy_at.reporting.sweeps import sweep_curves
from energy_at.reporting.tables import Table, grouped, steps_cell

COLUMNS = 6  # runs that have a column each; of more, those of a method share one
DELTA_ENERGY = "delta_energy"  # file of the paper's figure
TOGETHER = 4  # runs that the delta-energy figure can hold
DRAWN_BY_STEP = 12  # runs that each have their curves by step; of more, one of each method
UNKNOWN = "not recorded"
TERMS = (
    "The logits f(x) of a classifier define the energies E(x) = -logsumexp f(x) and "
    "E(x, y) = -f(x)[y]. dE(x) = E(x) - E(x*) and dE(x, y) = E(x, y) - E(x*, y) are their "
    "changes under attack, in nats; the shift norm is the length of [dE(x), dE(x, y)] (",
    Link("arXiv 2505.22486", "https://arxiv.org/abs/2505.22486"),
    "). An adversarial example is abnormal (AAE) if the attack lowered its loss: dE(x, y) > "
    "dE(x). Status of a run, by its PGD accuracy on held-out images: not robust, if it never "
    "exceeded chance (one-sided binomial test, 1 %); collapsed (catastrophic overfitting, CO), "
    "if it falls below half its best so far at the given step, under a single-step training "
    "attack, and is not back at 70 % of it, or clean and PGD accuracy are at chance; overfitted "
    "(robust overfitting, RO), if its running mean over five validations ends at least three "
    "points, and four standard errors, below its best, or it falls so under a multi-step attack; "
    "robust otherwise. The sentinel raised its alarms during training.",
)
DIFFER = "Differences of their configurations (without loggers, progress bar, place of the data):"
AGAINST = (
    "Mean and range over seeds of the runs that are results; a cross is a run that collapsed or is "
    "not robust. Accuracies of the last network, delta energies of the last epoch."
)
BY_RUN = "PGD error (held-out, left axis), delta energies (training, right axis); triangles: alarms"
BY_EPOCH = "Means over epochs and seeds; of runs that collapsed or are not robust, each seed"


def overview(found: Sequence[Entry], failed: Sequence[str] = ()) -> Iterator[Block]:
    yield TERMS
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
    yield Grid("runs", Table.of(rows), where(entry.run.is_marked for entry in found))
    if failed:
        yield "1 job has no result:" if len(failed) == 1 else f"{len(failed)} jobs have no result:"
        yield Code("\n".join(failed))
    yield from _choices(found) if len(found) == 1 else _differences(found)


def sweeps(found: Sequence[Entry], out: Path) -> dict[str, Iterable[Block]]:
    """A section for each swept number."""
    return {
        f"Against {one.key}": (
            *filter(None, [" ".join(one.best())]),
            Grid(f"against {one.key}", one.table()),
            draw(out, one.figure(), f"figures/{one.stem}", AGAINST),
        )
        for one in sweep_curves([entry.run for entry in found])
    }


def training(found: Sequence[Entry], out: Path) -> Iterator[Block]:
    """What was logged, by epoch and by step, with every onset of CO and RO."""
    logged = [entry for entry in found if entry.run.steps is not None]
    title = setting(configs(logged))
    if logged and len(found) <= TOGETHER:
        figure = delta_energy_figure({str(entry.label): entry.run.log for entry in logged}, title)
        yield draw(out, figure, DELTA_ENERGY, f"{BY_RUN}. {title}.")
    if logged:
        yield Heading("By epoch")
        figure = methods_figure(by_status(logged), title, PANELS)
        yield draw(out, figure, "figures/epochs", f"{BY_EPOCH}. {title}.")
        yield Heading("By optimizer step")
        chosen = drawn_by_step(logged)
        for i, entry in enumerate(chosen, 1):
            yield _by_step(entry, i, out)
        if len(chosen) < len(logged):
            yield f"The first run of each method and status: {len(chosen)} of {len(logged)}."
    if silent := ", ".join(entry.place for entry in found if entry.run.steps is None):
        yield (f"No training step was logged in {silent}: use ", Code("logger=csv"), ".")


def drawn_by_step(logged: Sequence[Entry]) -> list[Entry]:
    """All of a few runs; of many the first of each method and status."""
    if len(logged) <= DRAWN_BY_STEP:
        return list(logged)
    return [first for first, *_ in grouped(logged, lambda e: (e.method, e.run.mark())).values()]


def environment(found: Sequence[Entry]) -> Iterator[Block]:
    """One column for each environment, and the command of each run."""
    records = {entry.place: entry.run.folder.record() for entry in found}
    shared = grouped(records, lambda place: _facts(records[place]))
    rows = [(key, *cells) for key, cells in by_key(list(map(dict, shared)), UNKNOWN).items()]
    heads = ["all runs"] if len(shared) == 1 else [", ".join(p) for p in shared.values()]
    if different := [row[0] for row in rows if len(set(row[1:])) > 1]:
        yield f"The runs differ in {', '.join(different)}."
    elif len(found) > 1:
        yield "All runs have the same environment."
    if dirty := [p for p, r in records.items() if str(r.get("git_commit")).endswith("-dirty")]:
        yield f"Uncommitted changes in the source tree of: {', '.join(dirty)}."
    yield Grid("environment", Table(("", *heads), rows), where(row[0] in different for row in rows))
    commands = grouped(records, lambda place: _command(records[place].get("command") or []))
    for command, places in commands.items():
        yield ("Command of ", Code(", ".join(places)), ":")
        yield Code(command)


def _choices(found: Sequence[Entry]) -> Iterator[Block]:
    overrides = found[0].run.folder.overrides()
    yield f"Overrides that were typed:{'' if overrides else ' none recorded.'}"
    if overrides:
        yield Code("\n".join(overrides))


def _differences(found: Sequence[Entry]) -> Iterator[Block]:
    few = len(found) <= COLUMNS
    columns = grouped(found, lambda entry: entry.place if few else str(entry.method))
    table = differences({name: own[0].run.config for name, own in columns.items()})
    seeds = [dict.fromkeys(str(entry.run.config.seed) for entry in own) for own in columns.values()]
    rows = list(table.rows)
    if len(set(map(tuple, seeds))) > 1 or any(len(own) > 1 for own in seeds):
        rows.insert(0, ("seed", *(", ".join(own) for own in seeds)))
    if rows:
        yield DIFFER
        yield Grid("differences", Table(table.columns, rows))
    else:
        yield "The runs share one configuration."


def _by_step(entry: Entry, index: int, out: Path) -> Picture:
    run, style = entry.run, method_styles([entry.method])[entry.method]
    title = f"{entry.label}: {setting([run.config])}"
    figure = steps_figure(run, style, title)
    alarms = "; ".join(f"{kind} alarm at step {step}" for kind, step in run.log.alarms)
    caption = f"{title}. Folder {entry.path}. Range and mean of steps (thin), epoch means (thick)"
    return draw(
        out, figure, f"figures/steps_{index}", f"{caption}; {run.status}; {alarms or 'no alarm'}."
    )


def _facts(record: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    facts = {k: v for k, v in record.items() if k not in ("command", "overrides", "packages")}
    facts |= record.get("packages") or {}
    return tuple((key, UNKNOWN if value is None else str(value)) for key, value in facts.items())


def _command(words: Sequence[str]) -> str:
    """``python -m energy_at.train ...``, as far as it is recorded."""
    if not words:
        return UNKNOWN
    first, *rest = map(str, words)
    program = f"python -m energy_at.{Path(first).stem}" if first.endswith(".py") else first
    return f"{program} {shlex.join(rest)}".rstrip()
