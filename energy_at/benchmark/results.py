"""From scenarios to measurements, a table and files."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from energy_at.benchmark.measure import Key, Result, clock_of, measure
from energy_at.benchmark.rows import Row, make_row, peak_row
from energy_at.benchmark.scenarios import ROWS, SCALING, SCENARIOS, Setting
from energy_at.core.device import keep_freed_memory
from energy_at.reporting.tables import Table

COLUMNS = (
    "scenario",
    "row",
    "precision",
    "images/s",
    "ratio",
    "GFLOP/image",
    "TFLOP/s",
    "of peak %",
    "memory MiB",
    "over bare %",
    "loading %",
)
FILES = ("benchmark.json", "benchmark.csv", "benchmark.md")
OPERATIONS = ("matmul", "convolution")


def measure_scenarios(setting: Setting, *, progress: bool) -> Iterator[list[Result]]:
    """The results of each scenario as it is done, with the machine's own peaks."""
    if setting.config.training.keep_memory:
        keep_freed_memory()
    for scenario in setting.scenarios:
        yield _measure_scenario(setting, scenario, progress=progress)


def _measure_scenario(setting: Setting, scenario: str, *, progress: bool) -> list[Result]:
    cfg, device = setting.config, setting.device
    clock = clock_of(cfg.clock, device)
    settings = setting.sizes() if scenario == SCALING else dict.fromkeys(setting.rows, setting)
    rows: dict[Key, Row] = {}
    with ExitStack() as stack:
        for precision in setting.precisions:
            for name, own in settings.items():
                kind = "bare" if scenario == SCALING else name
                if (row := make_row(own, scenario, kind, precision, clock)) is not None:
                    rows[scenario, name, precision] = row
                    stack.callback(row.close)
            for operation in OPERATIONS:
                peak = peak_row(operation, precision, device, clock)
                rows[scenario, operation, precision] = peak
        total = len(rows) * setting.turns
        bar = stack.enter_context(tqdm(total=total, unit="turn", disable=not progress))

        def advance(key: Key) -> None:
            bar.set_postfix_str(" ".join(key))
            bar.update()

        timed = {"repeats": cfg.repeats, "warmup": cfg.warmup}
        return measure(rows, device, clock, **timed, advance=advance)


def table(results: Sequence[Result]) -> Table:
    """One row for each row, precision and scenario.

    ``ratio`` divides images a second by the reference's. ``over bare`` is the time of a full run
    beyond the bare loop's, ``loading`` the share of a turn spent on images.
    """
    most = peaks(results)
    rows = [result for result in results if result.row not in OPERATIONS]
    return Table(COLUMNS, [_cells(row, rows, most[row.precision]) for row in rows])


def peaks(results: Sequence[Result]) -> dict[str, float]:
    """The machine's highest measured FLOP/s at each precision."""
    own = [result for result in results if result.row in OPERATIONS]
    return {
        precision: max(result.speed for result in own if result.precision == precision)
        for precision in {result.precision for result in own}
    }


def summary(results: Sequence[Result], about: dict[str, Any]) -> str:
    """Machine, settings and peaks of these results, in two lines."""
    machine, settings, packages = about["machine"], about["settings"], about["machine"]["packages"]
    load = f", load {machine['load']}" if "load" in machine else ""
    most = ", ".join(f"{name} {speed / 1e12:.3g}" for name, speed in sorted(peaks(results).items()))
    return (
        f"{machine['device']}, {machine['threads']} threads{load}, torch {packages['torch']}; "
        f"{about['network']}, batch {settings['batch_size']}; median of {settings['repeats']} "
        f"turns of {settings['steps']} steps by the {settings['clock']} clock; "
        f"{settings['attack_steps']} attack steps, {settings['sampler_steps']} sampler steps\n"
        f"peak of a convolution or matrix product in the same rounds: {most} TFLOP/s"
    )


def write(results: Sequence[Result], about: dict[str, Any], folder: Path) -> None:
    """The table as Markdown and CSV; every turn as JSON."""
    cells = table(results)
    turns = [asdict(result) for result in results]
    (folder / "benchmark.json").write_text(json.dumps(about | {"rows": turns}, indent=1) + "\n")
    (folder / "benchmark.csv").write_text(cells.csv())
    (folder / "benchmark.md").write_text(f"{cells.markdown()}\n\n{summary(results, about)}\n")


def _cells(result: Result, results: Sequence[Result], peak: float) -> tuple[str, ...]:
    reference = _find(results, result.scenario, "reference", "fp32")
    bare = _find(results, result.scenario, "bare", result.precision)
    loading = sum(result.loading) / sum(result.seconds) if result.loading else None
    over = result.second / bare.second - 1 if bare and result.row == "full" else None
    return (
        SCENARIOS[result.scenario].label,
        ROWS.get(result.row, result.row),
        result.precision,
        f"{result.rate:.3g}",
        "" if reference is None else f"{result.rate / reference.rate:.2f}",
        f"{result.flops / result.images / 1e9:.3g}",
        f"{result.speed / 1e12:.3g}",
        f"{100 * result.speed / peak:.0f}",
        "" if result.peak is None else f"{result.peak / 2**20:.0f}",
        "" if over is None else f"{100 * over:+.1f}",
        "" if loading is None else f"{100 * loading:.2f}",
    )


def _find(results: Sequence[Result], scenario: str, row: str, precision: str) -> Result | None:
    key = (scenario, row, precision)
    return next((r for r in results if (r.scenario, r.row, r.precision) == key), None)
