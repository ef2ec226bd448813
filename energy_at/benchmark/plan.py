"""A benchmark from its configuration to its numbers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from energy_at.benchmark.apart import Apart, apart
from energy_at.benchmark.libraries import LIBRARIES, is_installed
from energy_at.benchmark.machine import Peak
from energy_at.benchmark.making import PUBLISHED, turns_of
from energy_at.benchmark.scenarios import PRECISIONS, ROWS, SCALING, SCENARIOS, chosen
from energy_at.benchmark.setting import Setting
from energy_at.benchmark.timing import Here, Measured, Turns, clock_of, progress, take_turns
from energy_at.core.memory import keep_freed_memory

_UNTIMED = 2  # turns that count work and memory


@dataclass(frozen=True)
class Plan:
    """What is measured, and how often.

    Attributes:
        setting: What the rows have in common.
        scenarios: Names of ``SCENARIOS``.
        rows: Names of ``ROWS``.
        precisions: ``fp32`` and ``bf16``; published loops run in fp32 whatever it says.
        rounds: Turns of each row that are timed.
        warmup: Turns of each row that are not.
        clock: ``wall``, or ``cpu``, which a busy machine disturbs less.
        apart: Whether published loops run in a process of their own, where what ours tell the C
            library about memory does not reach them.
    """

    setting: Setting
    scenarios: list[str]
    rows: list[str]
    precisions: list[str]
    rounds: int
    warmup: int
    clock: str
    apart: bool

    @property
    def turns(self) -> int:
        """Turns of each row."""
        return self.rounds + self.warmup + _UNTIMED

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for, in plain values."""
        setting = self.setting
        return {
            "batch_size": setting.batch_size,
            "steps": setting.steps,
            "repeats": self.rounds,
            "clock": self.clock,
            "apart": self.apart,
            "attack_steps": setting.attack_steps,
            "sampler_steps": setting.sampler_steps,
            **{f"training.{key}": value for key, value in setting.config.training.items()},
        }


@dataclass(frozen=True)
class Found:
    """The numbers of a row.

    Attributes:
        scenario: Its name in ``SCENARIOS``; nothing for the machine's own peak.
        row: Its name in ``ROWS``, or the operation of a peak.
        precision: ``fp32`` or ``bf16``.
        measured: What was measured.
    """

    scenario: str
    row: str
    precision: str
    measured: Measured

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.measured.images / self.measured.second

    @property
    def speed(self) -> float:
        """Floating-point operations a second."""
        return self.measured.flops / self.measured.second


def plan_of(cfg: DictConfig, device: torch.device) -> Plan:
    """What was asked for.

    Raises:
        ValueError: if a name is not known, or a row asks for a library that is not there.
    """
    rows = chosen("rows", cfg.rows, list(ROWS))
    missing = [name for name in rows if name in LIBRARIES and not is_installed(name)]
    if missing and cfg.rows is not None:
        raise ValueError(f"rows=[{missing[0]}]: {missing[0]} is not installed: leave it out")
    scenarios = chosen("scenarios", cfg.scenarios, list(SCENARIOS))
    if cfg.training.compile is not None and "gradalign" in scenarios:
        raise ValueError(
            f"training.compile={cfg.training.compile} has no second derivatives, which gradalign "
            "takes: leave it out of scenarios=[fgsm,fgsm_der,...]"
        )
    workers = (2 if device.type == "cuda" else 0) if cfg.workers == "auto" else cfg.workers
    setting = Setting(
        cfg,
        device,
        steps=cfg.steps,
        turns=cfg.repeats + cfg.warmup + _UNTIMED,
        attack_steps=cfg.attack_steps,
        sampler_steps=cfg.sampler_steps,
        workers=workers,
    )
    return Plan(
        setting,
        scenarios,
        [name for name in rows if name not in missing],
        chosen("precisions", cfg.precisions, PRECISIONS),
        cfg.repeats,
        cfg.warmup,
        cfg.clock,
        device.type == "cpu" if cfg.apart == "auto" else cfg.apart,
    )


def compared(plan: Plan, *, shown: bool) -> Iterator[list[Found]]:
    """The numbers of each scenario as it is done, the machine's own peaks measured beside it."""
    if plan.setting.config.training.keep_memory:
        keep_freed_memory()
    with ExitStack() as stack:
        published = any(name in PUBLISHED for name in plan.rows)
        beside = stack.enter_context(apart()) if plan.apart and published else None
        advance = stack.enter_context(progress(_turns(plan), shown=shown))
        for scenario in plan.scenarios:
            yield _scenario(plan, scenario, beside, advance)


def _turns(plan: Plan) -> int:
    """Turns of the whole plan, at most."""
    rows = 0
    for scenario in plan.scenarios:
        ours = 9 if scenario == SCALING else len(set(plan.rows) - set(PUBLISHED))
        theirs = 0 if scenario == SCALING else len(plan.rows) - ours
        rows += (ours + len(OPERATIONS)) * len(plan.precisions) + theirs
    return rows * plan.turns


def _scenario(
    plan: Plan, scenario: str, beside: Apart | None, advance: Callable[[str], None]
) -> list[Found]:
    with _rows(plan, scenario, beside) as rows:
        measured = take_turns(
            rows,
            rounds=plan.rounds,
            warmup=plan.warmup,
            advance=lambda key: advance(" ".join(key)),
        )
    return [
        Found(scenario, row, precision, found) for (_, row, precision), found in measured.items()
    ]


@contextmanager
def _rows(plan: Plan, scenario: str, beside: Apart | None) -> Iterator[dict[Any, Turns]]:
    rows: dict[Any, Turns] = {}
    setting, clock = plan.setting, clock_of(plan.clock, plan.setting.device)
    try:
        for precision in plan.precisions:
            for name, row in _made(plan, scenario, precision, beside):
                if row is not None:
                    rows[scenario, name, precision] = row
            for operation in OPERATIONS:
                peak = Peak(operation, precision, setting.device)
                rows[scenario, operation, precision] = Here(peak, setting.device, clock)
        yield rows
    finally:
        for row in rows.values():
            row.close()


def _made(
    plan: Plan, scenario: str, precision: str, beside: Apart | None
) -> Iterator[tuple[str, Turns | None]]:
    if scenario == SCALING:
        for name, setting in sizes(plan.setting).items():
            yield name, turns_of(setting, "pgd", "bare", precision, plan.clock)
        return
    for name in plan.rows:
        made = beside.turns_of if beside and name in PUBLISHED else turns_of
        yield name, made(plan.setting, scenario, name, precision, plan.clock)


def sizes(setting: Setting) -> dict[str, Setting]:
    """Three sizes of a step in images, in attack steps and in number: their cost is linear."""
    found = {}
    for n in (1, 2, 4):
        larger = OmegaConf.merge(
            setting.config, {"dataset": {"batch_size": n * setting.batch_size}}
        )
        assert isinstance(larger, DictConfig)
        found[f"batch {n * setting.batch_size}"] = replace(setting, config=larger)
        found[f"{n * setting.attack_steps} attack steps"] = replace(
            setting, attack_steps=n * setting.attack_steps
        )
        found[f"{n * setting.steps} optimizer steps"] = replace(setting, steps=n * setting.steps)
    return found


OPERATIONS = ("matmul", "convolution")


def peaks(found: Sequence[Found]) -> dict[str, float]:
    """The most operations a second that the machine was seen to do, for each precision."""
    own = [one for one in found if one.row in OPERATIONS]
    return {
        precision: max(one.speed for one in own if one.precision == precision)
        for precision in {one.precision for one in own}
    }
