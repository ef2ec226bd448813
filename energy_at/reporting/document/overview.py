"""What was compared, and on which machine."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from energy_at.reporting.describe import differences
from energy_at.reporting.document.html import Block, Code, Grid, Lines, Link, Paragraph, Section
from energy_at.reporting.document.runs import Entry
from energy_at.reporting.finished_run import APART
from energy_at.reporting.tables import Table

COLUMNS = 6  # runs that have a column each; of more, those of a method share one
PAPER = Link("arXiv 2505.22486", "https://arxiv.org/abs/2505.22486")
UNKNOWN = "not recorded"
TERMS = (
    "A classifier's logits f(x) define the energies E(x) = -logsumexp f(x) and E(x, y) = -f(x)[y]; "
    "dE(x) = E(x) - E(x*) and dE(x, y) = E(x, y) - E(x*, y) are their changes under attack, in "
    "nats, and the shift norm is the length of [dE(x), dE(x, y)] (",
    PAPER,
    "). An example is abnormal (AAE) where the attack lowered its loss: dE(x, y) > dE(x). CO, "
    "catastrophic overfitting: PGD accuracy on held-out images is below half its best, or below "
    "half of chance, from this step to the end. RO, robust overfitting: its running mean over five "
    "validations ends at least three points, and four standard errors, below its best. Not "
    "learned: at the end neither clean nor PGD accuracy on held-out images is above that of a "
    "constant prediction (one-sided binomial test, 1 %). Alarms are those of the sentinel, raised "
    "while the run was trained.",
)

DIFFER = (
    "Where their configurations differ, but for what changes no result (loggers, progress bar, "
    "place of the data):"
)


def compared(found: Sequence[Entry], failed: Sequence[str] = ()) -> Section:
    """The runs, jobs that failed, the terms, and where the configurations differ."""
    apart = any(entry.place != str(entry.path) for entry in found)
    rows = [(e.place, *([str(e.path)] if apart else []), e.method, str(e.run.config.seed),
             _steps(e), *_onsets(e), _alarms(e)) for e in found]  # fmt: skip
    columns = ("run", *(["folder"] if apart else []), "method", "seed", "steps", "CO from step",
               "RO from step", "alarms at step")  # fmt: skip
    lost = frozenset(i for i, entry in enumerate(found) if entry.run.onsets or entry.run.mark())
    runs = Grid("runs", Table(columns, rows), lost)
    return Section(
        "What was compared", (Paragraph(TERMS), runs, *_failed(failed), *_choices(found))
    )


def environment(found: Sequence[Entry]) -> Section:
    """Versions, machine, commit and command of every run."""
    table, marked = _environments({entry.place: entry.run.folder.record() for entry in found})
    differing = [table.rows[i][0] for i in sorted(marked)]
    said = f"The runs differ in {', '.join(differing)}." if differing else ""
    same = "All runs were made in the same environment." if len(found) > 1 else ""
    dirty = [entry.place for entry in found if _is_dirty(entry)]
    return Section(
        "Environment",
        (
            *_sentence(said or same),
            *_sentence(f"Made from a source tree with changes that no commit holds: "
                       f"{', '.join(dirty)}." if dirty else ""),
            Grid("environment", table, marked),
            *_commands(found),
        ),
    )  # fmt: skip


def _failed(failed: Sequence[str]) -> list[Block]:
    said = "1 job has" if len(failed) == 1 else f"{len(failed)} jobs have"
    return [Paragraph((f"{said} no result:",)), Lines(tuple(failed))] if failed else []


def _choices(found: Sequence[Entry]) -> list[Block]:
    if len(found) == 1:
        typed = found[0].run.folder.overrides()
        said = "Choices that differ from the defaults"
        if not typed:
            return [Paragraph((f"{said}: none recorded.",))]
        return [Paragraph((f"{said}, as typed:",)), Lines(tuple(typed))]
    columns: dict[str, list[Entry]] = {}
    for entry in found:
        name = entry.place if len(found) <= COLUMNS else entry.method
        columns.setdefault(name, []).append(entry)
    table = differences({name: own[0].run.config for name, own in columns.items()}, APART)
    rows = [*_seeds(columns), *table.rows]
    if not rows:
        return [Paragraph(("The runs share one configuration.",))]
    return [Paragraph((DIFFER,)), Grid("differences", Table(table.columns, rows))]


def _seeds(columns: Mapping[str, Sequence[Entry]]) -> list[tuple[str, ...]]:
    """Their row, if they tell anything apart."""
    seeds = [dict.fromkeys(str(entry.run.config.seed) for entry in own) for own in columns.values()]
    cells = [", ".join(own) for own in seeds]
    return [("seed", *cells)] if len(set(cells)) > 1 or any(len(own) > 1 for own in seeds) else []


def _steps(entry: Entry) -> str:
    loss = entry.run.log["train/loss"]
    return str(int(loss.steps[-1])) if len(loss) else "not logged"


def _onsets(entry: Entry) -> tuple[str, str]:
    overfitted = entry.run.overfitted
    known = "not learned" if entry.run.fate == "not learned" else "none"
    known = known if entry.run.validations else "not logged"
    return entry.run.fate, known if overfitted is None else str(overfitted)


def _alarms(entry: Entry) -> str:
    """``CO 52, RO 240``: what the sentinel said while the run was trained."""
    raised = ", ".join(f"{kind} {step}" for kind, step in entry.run.log.alarms)
    return raised or ("none" if entry.run.watched else "no sentinel")


def _environments(records: Mapping[str, Mapping[str, Any]]) -> tuple[Table, frozenset[int]]:
    """One column for each environment, and the rows in which they differ."""
    flat = {place: _flat(record) for place, record in records.items()}
    shared: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for place, facts in flat.items():
        shared.setdefault(tuple(facts.items()), []).append(place)
    columns = [dict(facts) for facts in shared]
    keys = dict.fromkeys(key for facts in columns for key in facts)
    rows = [(key, *(facts.get(key, UNKNOWN) for facts in columns)) for key in keys]
    heads = ["all runs"] if len(shared) == 1 else [", ".join(p) for p in shared.values()]
    marked = frozenset(i for i, row in enumerate(rows) if len(set(row[1:])) > 1)
    return Table(("", *heads), rows), marked


def _flat(record: Mapping[str, Any]) -> dict[str, str]:
    facts = {key: value for key, value in record.items()
             if key not in ("command", "overrides", "packages")}  # fmt: skip
    facts |= record.get("packages") or {}
    return {key: UNKNOWN if value is None else str(value) for key, value in facts.items()}


def _is_dirty(entry: Entry) -> bool:
    return str(entry.run.folder.record().get("git_commit")).endswith("-dirty")


def _commands(found: Sequence[Entry]) -> list[Block]:
    shared: dict[str, list[str]] = {}
    for entry in found:
        command = _command(entry.run.folder.record().get("command") or [])
        shared.setdefault(command, []).append(entry.place)
    return [
        block
        for command, places in shared.items()
        for block in (
            Paragraph(("Command of ", Code(", ".join(places)), ":")),
            Lines((command,)),
        )
    ]


def _command(words: Sequence[str]) -> str:
    """``python -m energy_at.train ...``: what was typed, for all that is recorded."""
    if not words:
        return UNKNOWN
    first, *rest = map(str, words)
    program = f"python -m energy_at.{Path(first).stem}" if first.endswith(".py") else first
    return f"{program} {shlex.join(rest)}".rstrip()


def _sentence(text: str) -> list[Block]:
    return [Paragraph((text,))] if text else []
