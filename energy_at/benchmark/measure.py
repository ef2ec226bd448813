"""Measures the rows of all scenarios, and writes the results.

Rows are measured in turns, every row in every round, so that all of them meet the same machine.
"""

import ctypes
import json
import os
import platform
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from energy_at.benchmark.rows import Row, make_row, peak_row
from energy_at.benchmark.scenarios import ROWS, SCALING, SCENARIOS, Clock, Setting
from energy_at.core.device import processor_name
from energy_at.core.progress import Bar
from energy_at.reporting.tables import Table
from energy_at.runs.environment import environment

FILES = ("benchmark.json", "benchmark.csv", "benchmark.md", "benchmark.tex")
OPERATIONS = ("matmul", "convolution")


@dataclass
class Result:
    """What the turns of a row take: median seconds of a turn, images and FLOPs a second."""

    scenario: str
    row: str  # of ``ROWS``, a size of ``scaling``, or the operation of a peak
    precision: str
    images: int = 0  # of a turn
    seconds: list[float] = field(default_factory=list)  # of each turn
    loading: list[float] = field(default_factory=list)  # of it on images; empty if unknown
    flops: float = 0.0  # of a turn
    peak: int | None = None  # bytes beyond those held before a turn; None if not available
    steps: int | None = None  # of each image, of a sampler

    @property
    def second(self) -> float:
        return median(self.seconds)

    @property
    def rate(self) -> float:
        return self.images / self.second

    @property
    def speed(self) -> float:
        return self.flops / self.second


Key = tuple[str, str, str]  # scenario, row, precision


def measure(
    rows: Mapping[Key, Row],
    device: torch.device,
    clock: Clock,
    *,
    repeats: int,
    warmup: int,
    advance: Callable[[Key], object],
) -> list[Result]:
    """Measure all rows in alternation, ``repeats`` turns of each after ``warmup`` untimed ones.

    Before them a turn of each row measures its memory and another counts its operations: the first
    one may also check what it trains. ``advance`` is called with the key of the row whose turn is
    next.
    """
    results = {}
    for key, row in rows.items():
        advance(key)
        results[key] = Result(*key, peak=peak_memory(row, device), images=row.images)
    for key, row in rows.items():
        advance(key)
        results[key].flops = count_flops(row)
    order = deque(rows.items())
    for index in range(warmup + repeats):
        for key, row in order:
            advance(key)
            start = clock()
            row.turn()
            seconds = clock() - start
            if index >= warmup:
                results[key].seconds.append(seconds)
                if row.loading is not None:
                    results[key].loading.append(row.loading)
        order.rotate(-1)  # no row always follows the same one
    return list(results.values())


class FlopCounter(TorchDispatchMode):
    """Counts floating-point operations by torch's own formulas.

    Torch's counter fails where a gradient is taken of a module's input, as sampling does.
    """

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        value = func(*args, **(kwargs or {}))
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=value)
        return value


def count_flops(row: Row) -> float:
    """Floating-point operations of a turn, counted without compilation."""
    counter = FlopCounter()
    with torch.compiler.set_stance("force_eager"):  # compiled code does not dispatch operations
        row.turn(lambda: counter)
    return float(counter.flops)


def peak_memory(row: Row, device: torch.device) -> int | None:
    """Bytes at the peak of a turn beyond those held before; ``None`` if not available."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        row.turn()
        return torch.cuda.max_memory_allocated(device) - before
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)  # returns freed memory to the system
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # restarts the peak from here
    held = resident_memory()
    row.turn()
    peak = resident_memory(peak=True)
    return None if held is None or peak is None else max(0, peak - held)


def resident_memory(*, peak: bool = False) -> int | None:
    """Resident bytes, or the most since the last restart of the peak; ``None`` if not available."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    name = "VmHWM:" if peak else "VmRSS:"
    values = [line.split()[1] for line in lines if line.startswith(name)]
    return 1024 * int(values[0]) if values else None


def describe_machine(device: torch.device) -> dict[str, Any]:
    about = environment()
    if device.type != "cuda":
        about["device"] = processor_name()
    if hasattr(os, "getloadavg"):
        about["load"] = round(os.getloadavg()[0], 1)  # processes that wait for a core
    return about


def measure_scenario(setting: Setting, scenario: str) -> list[Result]:
    """The results of the rows of a scenario, with the machine's own peaks."""
    cfg = setting.config
    settings = setting.sizes() if scenario == SCALING else dict.fromkeys(setting.rows, setting)
    rows: dict[Key, Row] = {}
    with ExitStack() as stack:
        for precision in setting.precisions:
            for name, own in settings.items():
                kind = "bare" if scenario == SCALING else name
                if (row := make_row(own, scenario, kind, precision)) is not None:
                    rows[scenario, name, precision] = row
                    stack.callback(row.close)
            for operation in OPERATIONS:
                rows[scenario, operation, precision] = peak_row(setting, operation, precision)
        total = len(rows) * setting.turns
        bar = stack.enter_context(Bar(total=total, unit="turn", visible=cfg.progress))

        def advance(key: Key) -> None:
            bar.set_postfix_str(" ".join(key))
            bar.update()

        timed = {"repeats": cfg.repeats, "warmup": cfg.warmup}
        results = measure(rows, setting.device, setting.clock, **timed, advance=advance)
        for result in results:
            if scenario == "sampling" and result.row not in OPERATIONS:
                result.steps = int(cfg.sampler_steps)
        return results


def table(results: Sequence[Result]) -> Table:
    """One row for each row, precision and scenario.

    ``ratio`` divides images a second by the reference's. ``over bare`` is the time of a full run
    beyond the bare loop's, ``loading`` the share of a turn spent on images, and ``image steps/s``
    what a sampler does while no sample has stopped.
    """
    most, cells = peaks(results), []
    rows = {(r.scenario, r.row, r.precision): r for r in results if r.row not in OPERATIONS}
    for result in rows.values():
        reference = rows.get((result.scenario, "reference", "fp32"))
        bare = rows.get((result.scenario, "bare", result.precision))
        loading = sum(result.loading) / sum(result.seconds) if result.loading else None
        over = result.second / bare.second - 1 if bare and result.row == "full" else None
        cells.append(
            {
                "scenario": SCENARIOS[result.scenario].label,
                "row": ROWS.get(result.row, result.row),
                "precision": result.precision,
                "images/s": f"{result.rate:.3g}",
                "image steps/s": ""
                if result.steps is None
                else f"{result.rate * result.steps:.3g}",
                "ratio": "" if reference is None else f"{result.rate / reference.rate:.2f}",
                "GFLOP/image": f"{result.flops / result.images / 1e9:.3g}",
                "TFLOP/s": f"{result.speed / 1e12:.3g}",
                "of peak %": f"{100 * result.speed / most[result.precision]:.0f}",
                "memory MiB": "" if result.peak is None else f"{result.peak / 2**20:.0f}",
                "over bare %": "" if over is None else f"{100 * over:+z.1f}",
                "loading %": "" if loading is None else f"{100 * loading:.2f}",
            }
        )
    return Table.of(cells)


def peaks(results: Sequence[Result]) -> dict[str, float]:
    """The machine's highest measured FLOP/s at each precision."""
    most: dict[str, float] = {}
    for result in results:
        if result.row in OPERATIONS:
            most[result.precision] = max(result.speed, most.get(result.precision, 0.0))
    return most


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
    cells, turns = table(results), [asdict(result) for result in results]
    (folder / "benchmark.json").write_text(json.dumps(about | {"rows": turns}, indent=1) + "\n")
    (folder / "benchmark.csv").write_text(cells.csv())
    (folder / "benchmark.tex").write_text(cells.latex() + "\n")
    (folder / "benchmark.md").write_text(f"{cells.markdown()}\n\n{summary(results, about)}\n")
