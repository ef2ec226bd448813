"""Methods compared over seeds: one row each, collapsed runs marked and never averaged."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from omegaconf import DictConfig, OmegaConf

from energy_at.collapse import collapse_step
from energy_at.runs import RunFolder
from energy_at.tables import Table, last_epoch_means

NAMED = ("attack", "loss", "reg")  # groups whose choice is part of the method's name
APART = ("seed", "resume")  # what runs of one row may differ in


@dataclass(frozen=True)
class FinishedRun:
    """What a comparison needs of a run that has finished."""

    folder: RunFolder

    @cached_property
    def config(self) -> DictConfig:
        """Its resolved configuration."""
        return self.folder.config()

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """Its log."""
        return self.folder.metrics()

    @cached_property
    def collapsed(self) -> int | None:
        """Step from which it is collapsed; ``None`` if it is not."""
        return collapse_step(self.metrics, self.config.dataset.classes)

    @property
    def settings(self) -> str:
        """Everything that it was configured with, but for the seed."""
        config = OmegaConf.to_container(self.config)
        assert isinstance(config, dict)
        return json.dumps({k: v for k, v in config.items() if k not in APART}, sort_keys=True)

    def percent(self, checkpoint: str, name: str) -> float | None:
        """A test accuracy in percent; ``None`` if it was not measured."""
        shares = self.folder.results().get(checkpoint, {}).get("test", {})
        return 100 * shares[name] if name in shares else None

    def cost(self, name: str) -> float | None:
        """``"forward_equivalents"`` of an image, or ``"seconds"`` of training."""
        value = self.folder.results().get("training", {}).get(name)
        return None if value is None else float(value)

    def trained(self, name: str) -> float:
        """Mean of a training metric over the last epoch."""
        return last_epoch_means(self.metrics, [f"train/{name}"])[0]


def method(cfg: DictConfig) -> str:
    """``FGSM-AT + DER``, ``TRADES``, ``MART (PGD) + AWP``: base method, regularizers, AWP."""
    attack, loss, reg = (cfg[group].name for group in NAMED)
    base = f"{attack}-AT" if loss == "AT" else loss if attack == "TRADES" else f"{loss} ({attack})"
    added = [] if reg == "none" else [reg]
    return " + ".join([base, *added, *(["AWP"] if cfg.training.awp.gamma else [])])


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
    return {
        name if names.count(name) == 1 else f"{name} ({runs[0].folder.path.name})": runs
        for name, runs in zip(names, groups.values(), strict=True)
    }


def comparison_table(groups: dict[str, list[FinishedRun]]) -> Table:
    """One row for each method and checkpoint, on test images; mean and range over seeds.

    A method with a collapsed run has no accuracy to show: it says how many runs collapsed, and
    from which step.
    """
    columns = ("method", "checkpoint", "runs", "clean %", "FGSM %", f"{_pgd(groups)} %",
               "AAE share %", "collapse at step", "forward passes", "minutes")  # fmt: skip
    return Table(columns, [row for name, runs in groups.items() for row in _rows(name, runs)])


def runs_table(groups: dict[str, list[FinishedRun]]) -> Table:
    """One row for each run and checkpoint, collapsed ones too, as it was measured."""
    columns = ("method", "run", "seed", "checkpoint", "clean %", "FGSM %", f"{_pgd(groups)} %",
               "AAE share %", "collapse at step", "forward passes", "minutes")  # fmt: skip
    rows = [
        (
            name,
            run.folder.path.name,
            str(run.config.seed),
            checkpoint,
            *(_cell([run.percent(checkpoint, share)]) for share in ("clean", "fgsm", "pgd")),
            _cell([100 * run.trained("aae_share")]),
            "none" if run.collapsed is None else str(run.collapsed),
            *_costs([run]),
        )
        for name, runs in groups.items()
        for run in runs
        for checkpoint in _checkpoints(run)
    ]
    return Table(columns, rows)


def _rows(name: str, runs: list[FinishedRun]) -> list[tuple[str, ...]]:
    steps = [run.collapsed for run in runs if run.collapsed is not None]
    fate = f"{', '.join(map(str, steps))} ({len(steps)} of {len(runs)} runs)" if steps else "none"
    return [
        (
            name,
            checkpoint,
            str(len(runs)),
            *_shown(runs, checkpoint, broken=bool(steps) and checkpoint == "last"),
            _cell([100 * run.trained("aae_share") for run in runs]),
            fate,
            *_costs(runs),
        )
        for checkpoint in _checkpoints(runs[0])
    ]


def _shown(runs: list[FinishedRun], checkpoint: str, *, broken: bool) -> list[str]:
    if broken:
        return ["collapsed"] * 3
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


def _checkpoints(run: FinishedRun) -> list[str]:
    return [name for name in run.folder.results() if name in ("last", "best")]


def _pgd(groups: dict[str, list[FinishedRun]]) -> str:
    """``PGD-50-10`` if all runs were judged by the same attack."""
    names = set()
    for runs in groups.values():
        attack = runs[0].config.evaluation.attacks.pgd
        restarts = attack.get("restarts", 1)
        names.add(f"PGD-{attack.steps}" + (f"-{restarts}" if restarts > 1 else ""))
    return names.pop() if len(names) == 1 else "PGD"


def _typed(run: FinishedRun) -> list[str]:
    """The overrides of the run that its method's name and the seed do not say."""
    return [
        override
        for override in run.folder.overrides()
        if override.lstrip("+~").partition("=")[0] not in (*NAMED, *APART)
    ]
