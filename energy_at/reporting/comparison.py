"""Methods compared over seeds: one row each; a run that is no result is marked, never averaged."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from energy_at.overfitting.alarms import ALARMS
from energy_at.reporting.describe import setting
from energy_at.reporting.figures.style import methods_figure, save
from energy_at.reporting.finished_run import APART, FinishedRun
from energy_at.reporting.tables import Table
from energy_at.runs.folder import RunFolder, folder_names

FILES = ("comparison.md", "comparison.csv", "comparison.png", "comparison.pdf", "runs.csv")
COSTS = ("forward passes", "minutes with validation")
MEASURED = ("AAE share %", "collapse at step", "first alarm at step", *COSTS)
EACH = ("AAE share %", "collapse at step", "first alarm", "alarm at step", "alarm in epoch", *COSTS)
NAMED = ("attack", "loss", "reg")  # groups whose choice is part of the method's name


def method(cfg: DictConfig) -> str:
    """``FGSM-AT + DER``, ``TRADES``, ``MART (PGD) + AWP``: base method, regularizers, AWP."""
    attack, loss, reg = (OmegaConf.select(cfg, f"{group}.name") for group in NAMED)
    if None in (attack, loss, reg):
        return "method without name"  # of a configuration older than the names
    base = f"{attack}-AT" if loss == "AT" else loss if attack == "TRADES" else f"{loss} ({attack})"
    base = "standard training" if attack == "none" else base
    added = [] if reg == "none" else [reg]
    awp = OmegaConf.select(cfg, "training.awp.gamma")
    return " + ".join([base, *added, *(["AWP"] if awp else [])])


def grouped(folders: Sequence[RunFolder]) -> dict[str, list[FinishedRun]]:
    """Runs that differ in their seed alone, under a name that tells them from all others."""
    groups: dict[str, list[FinishedRun]] = {}
    for folder in folders:
        run = FinishedRun(folder)
        groups.setdefault(run.settings, []).append(run)
    typed = [_typed(runs[0]) for runs in groups.values()]
    shared = set.intersection(*map(set, typed)) if typed else set()
    names = [
        ", ".join([method(runs[0].config), *(o for o in own if o not in shared)])
        for runs, own in zip(groups.values(), typed, strict=True)
    ]
    places = folder_names([runs[0].folder for runs in groups.values()])
    return {
        name if names.count(name) == 1 else f"{name} ({place})": runs
        for name, place, runs in zip(names, places, groups.values(), strict=True)
    }


def write_comparison(folders: Sequence[RunFolder], out: Path) -> str:
    """Writes ``FILES`` to ``out``: the comparison, every single run, all curves in one figure.

    Returns:
        The comparison as Markdown.
    """
    return write_groups(grouped(folders), out)


def write_groups(groups: dict[str, list[FinishedRun]], out: Path) -> str:
    """The same of runs that are grouped already."""
    table = comparison_table(groups)
    out.mkdir(parents=True, exist_ok=True)
    (out / "comparison.md").write_text(table.markdown() + "\n")
    (out / "comparison.csv").write_text(table.csv())
    (out / "runs.csv").write_text(runs_table(groups).csv())
    logs = {name: [run.log for run in runs] for name, runs in parted(groups).items()}
    save(methods_figure(logs, title=setting(configs(groups))), out / "comparison")
    return table.markdown()


def parted(groups: dict[str, list[FinishedRun]]) -> dict[str, list[FinishedRun]]:
    """The same groups, runs that are no result in groups of their own: no curve averages them."""
    found: dict[str, list[FinishedRun]] = {}
    for name, runs in groups.items():
        for run in runs:
            label = f"{name} ({run.mark()})" if run.mark() else name
            found.setdefault(label, []).append(run)
    return found


def configs(groups: dict[str, list[FinishedRun]]) -> list[DictConfig]:
    """Configurations of all runs."""
    return [run.config for runs in groups.values() for run in runs]


def comparison_table(groups: dict[str, list[FinishedRun]]) -> Table:
    """One row for each method and checkpoint, on test images; mean and range over seeds.

    A method with a run that collapsed, or has not learned, has no accuracy to show: it says how
    many runs did, and from which step.
    """
    columns = ("method", "checkpoint", "runs", "clean %", "FGSM %", f"{_pgd(groups)} %",
               *MEASURED)  # fmt: skip
    return Table(columns, [row for name, runs in groups.items() for row in _rows(name, runs)])


def runs_table(groups: dict[str, list[FinishedRun]]) -> Table:
    """One row for each run and checkpoint as it was measured, be it a result or not."""
    columns = ("method", "run", "seed", "checkpoint", "clean %", "FGSM %", f"{_pgd(groups)} %",
               *EACH)  # fmt: skip
    rows = [
        (
            name,
            place,
            str(run.config.seed),
            checkpoint,
            *(_cell([run.percent(checkpoint, share)]) for share in ("clean", "fgsm", "pgd")),
            _cell([run.trained_percent("aae_share")]),
            run.fate,
            *_first_alarm(run),
            *_costs([run]),
        )
        for name, run, place in _placed(groups)
        for checkpoint in _checkpoints(run)
    ]
    return Table(columns, rows)


def _placed(groups: dict[str, list[FinishedRun]]) -> list[tuple[str, FinishedRun, str]]:
    """Every run with the names of its method and its folder."""
    runs = [(name, run) for name, found in groups.items() for run in found]
    places = folder_names([run.folder for _, run in runs])
    return [(name, run, place) for (name, run), place in zip(runs, places, strict=True)]


def _rows(name: str, runs: list[FinishedRun]) -> list[tuple[str, ...]]:
    lost = any(run.mark() for run in runs)
    return [
        (
            name,
            checkpoint,
            str(len(runs)),
            *_shown(runs, checkpoint),
            (_each if lost else _cell)([run.trained_percent("aae_share") for run in runs]),
            _fate(runs),
            _alarms(runs),
            *_costs(runs),
        )
        for checkpoint in _checkpoints(runs[0])
    ]


def _fate(runs: list[FinishedRun]) -> str:
    """``474, 316 (2 of 3 runs); not learned (1 of 3 runs)``, or ``none``, or ``not logged``."""
    steps = [run.fate for run in runs if run.mark() == "collapsed"]
    unlearned = [run.fate for run in runs if run.mark() == "not learned"]
    lost = [
        f"{said} ({len(fates)} of {len(runs)} runs)"
        for said, fates in ((", ".join(steps), steps), ("not learned", unlearned))
        if fates
    ]
    sound = "none" if all(run.fate == "none" for run in runs) else "not logged"
    return "; ".join(lost) or sound


def _alarms(runs: list[FinishedRun]) -> str:
    """``CO 331, 305 (2 of 3 runs); RO 240 (1 of 3 runs)``, or ``none``, or ``no sentinel``."""
    found = [
        f"{kind} {', '.join(steps)} ({len(steps)} of {len(runs)} runs)"
        for kind in ALARMS
        if (steps := [str(run.alarms[kind]) for run in runs if kind in run.alarms])
    ]
    return "; ".join(found) or ("none" if any(run.watched for run in runs) else "no sentinel")


def _first_alarm(run: FinishedRun) -> tuple[str, str, str]:
    """``CO``, its step, and the epoch that it was in, from 1 on."""
    if not run.alarms:
        return ("none" if run.watched else "no sentinel", "", "")
    kind, step = next(iter(run.alarms.items()))
    known = "train/loss" in run.log
    return kind, str(step), str(ceil(step / run.log.steps_per_epoch)) if known else ""


def _shown(runs: list[FinishedRun], checkpoint: str) -> list[str]:
    marks = sorted({run.mark(checkpoint) for run in runs} - {""})
    if marks:
        return [", ".join(marks)] * 3
    return [
        _cell([run.percent(checkpoint, share) for run in runs])
        for share in ("clean", "fgsm", "pgd")
    ]


def _costs(runs: list[FinishedRun]) -> tuple[str, str]:
    seconds = [run.cost("seconds") for run in runs]
    return (
        _cell([run.cost("forward_equivalents") for run in runs]),
        _cell([None if s is None else s / 60 for s in seconds]),
    )


def _cell(values: Sequence[float | None]) -> str:
    """``34.2`` of one run, ``34.2 [32.7, 35.6]`` of several that differ."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    mean, low, high = sum(known) / len(known), min(known), max(known)
    spread = f" [{low:.1f}, {high:.1f}]" if f"{low:.1f}" != f"{high:.1f}" else ""
    return f"{mean:.1f}{spread}"


def _each(values: Sequence[float | None]) -> str:
    """``0.4, 69.1``: values that no mean may join."""
    cells = [_cell([value]) for value in values]
    return ", ".join(cells) if any(cells) else ""


def _checkpoints(run: FinishedRun) -> list[str]:
    return [name for name in run.folder.results() if name in ("last", "best")]


def _pgd(groups: dict[str, list[FinishedRun]]) -> str:
    """``PGD-50-10`` if all runs were judged by the same attack."""
    names = set()
    for runs in groups.values():
        attack = runs[0].config.evaluation.attacks.get("pgd")
        if attack is None:
            continue
        restarts = attack.get("restarts", 1)
        names.add(f"PGD-{attack.steps}" + (f"-{restarts}" if restarts > 1 else ""))
    return names.pop() if len(names) == 1 else "PGD"


def _typed(run: FinishedRun) -> list[str]:
    """The overrides of the run that its method's name and the seed do not say."""
    overrides = map(_as_in_yaml, run.folder.overrides())
    return [o for o in overrides if not _says_nothing(o.lstrip("+~").split("=")[0])]


def _as_in_yaml(override: str) -> str:
    """Hydra turns the ``false`` of a sweep into ``False``."""
    key, sign, value = override.partition("=")
    return f"{key}{sign}{value.lower() if value in ('True', 'False') else value}"


def _says_nothing(key: str) -> bool:
    return key in NAMED or any(key == apart or key.startswith(f"{apart}.") for apart in APART)
