"""Which runs a report compares, where their configurations differ, and their environments."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from energy_at.reporting.comparison import NO_SENTINEL, Entry
from energy_at.reporting.describe import differences
from energy_at.reporting.document.html import Block, Code, Grid, Lines, Link, Paragraph, Section
from energy_at.reporting.tables import Table, steps_cell

COLUMNS = 6  # runs that have a column each; of more, those of a method share one
PAPER = Link("arXiv 2505.22486", "https://arxiv.org/abs/2505.22486")
UNKNOWN = "not recorded"
TERMS = (
    "The logits f(x) of a classifier define the energies E(x) = -logsumexp f(x) and "
    "E(x, y) = -f(x)[y]. dE(x) = E(x) - E(x*) and dE(x, y) = E(x, y) - E(x*, y) are their changes "
    "under attack, in nats; the shift norm is the length of [dE(x), dE(x, y)] (",
    PAPER,
    "). An adversarial example is abnormal (AAE) if the attack lowered its loss: dE(x, y) > dE(x). "
    "Status of a run, by its PGD accuracy on held-out images: not robust, if it never exceeded "
    "chance (one-sided binomial test, 1 %); collapsed (catastrophic overfitting, CO), if from the "
    "given step to the end it is below half its best so far, or clean and PGD accuracy are at "
    "chance; overfitted (robust overfitting, RO), if its running mean over five validations ends "
    "at least three points, and four standard errors, below its best; robust otherwise. The "
    "sentinel raised its alarms during training.",
)
DIFFER = "Differences of their configurations (without loggers, progress bar, place of the data):"


def overview(found: Sequence[Entry], failed: Sequence[str] = ()) -> Section:
    """The runs, failed jobs, the terms, and where the configurations differ."""
    with_folder = any(entry.place != str(entry.path) for entry in found)
    rows = [
        (
            entry.place,
            *([str(entry.path)] if with_folder else []),
            str(entry.method),
            str(entry.run.config.seed),
            "not logged" if entry.run.steps is None else str(entry.run.steps),
            str(entry.run.status),
            steps_cell(entry.run.log.alarms) or ("none" if entry.run.has_sentinel else NO_SENTINEL),
        )
        for entry in found
    ]
    folder = ["folder"] if with_folder else []
    columns = ("run", *folder, "method", "seed", "steps", "status", "alarms at step")
    lost = frozenset(i for i, e in enumerate(found) if e.run.status.onsets or e.run.mark())
    runs = Grid("runs", Table(columns, rows), lost)
    return Section("Runs", (Paragraph(TERMS), runs, *_failed(failed), *_choices(found)))


def environment(found: Sequence[Entry]) -> Section:
    """Versions, machine, commit and command of every run."""
    table, marked = _environments({entry.place: entry.run.folder.record() for entry in found})
    lines = []
    if marked:
        lines.append(f"The runs differ in {', '.join(table.rows[i][0] for i in sorted(marked))}.")
    elif len(found) > 1:
        lines.append("All runs have the same environment.")
    if dirty := [entry.place for entry in found if _is_dirty(entry)]:
        lines.append(f"Uncommitted changes in the source tree of: {', '.join(dirty)}.")
    sentences = [Paragraph((line,)) for line in lines]
    grid = Grid("environment", table, marked)
    return Section("Environment", (*sentences, grid, *_commands(found)))


def _failed(failed: Sequence[str]) -> list[Block]:
    jobs = "1 job has" if len(failed) == 1 else f"{len(failed)} jobs have"
    return [Paragraph((f"{jobs} no result:",)), Lines(tuple(failed))] if failed else []


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
    marked = frozenset(i for i, row in enumerate(rows) if len(set(row[1:])) > 1)
    return Table(("", *heads), rows), marked


def _is_dirty(entry: Entry) -> bool:
    return str(entry.run.folder.record().get("git_commit")).endswith("-dirty")


def _commands(found: Sequence[Entry]) -> list[Block]:
    shared: dict[str, list[str]] = {}
    for entry in found:
        command = _command(entry.run.folder.record().get("command") or [])
        shared.setdefault(command, []).append(entry.place)
    blocks: list[Block] = []
    for command, places in shared.items():
        blocks += [Paragraph(("Command of ", Code(", ".join(places)), ":")), Lines((command,))]
    return blocks


def _command(words: Sequence[str]) -> str:
    """``python -m energy_at.train ...``, as far as it is recorded."""
    if not words:
        return UNKNOWN
    first, *rest = map(str, words)
    program = f"python -m energy_at.{Path(first).stem}" if first.endswith(".py") else first
    return f"{program} {shlex.join(rest)}".rstrip()
