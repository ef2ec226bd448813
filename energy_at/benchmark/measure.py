"""Measure rows in turns: every row in every round, so that all of them meet the same machine."""

import ctypes
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from energy_at.benchmark.rows import Clock, Row
from energy_at.core.device import processor_name
from energy_at.runs.environment import environment


@dataclass
class Result:
    """What the turns of a row take.

    Attributes:
        scenario: Its name in ``SCENARIOS``.
        row: Its name in ``ROWS``, a size of ``scaling``, or the operation of a peak.
        precision: ``fp32`` or ``bf16``.
        images: Of a turn.
        seconds: Of each turn.
        loading: Seconds of each turn spent on images; empty where they cannot be separated.
        flops: Floating-point operations of a turn.
        peak: Bytes at the peak of a turn beyond those held before; ``None`` if not available.
    """

    scenario: str
    row: str
    precision: str
    images: int = 0
    seconds: list[float] = field(default_factory=list)
    loading: list[float] = field(default_factory=list)
    flops: float = 0.0
    peak: int | None = None

    @property
    def second(self) -> float:
        """Median seconds of a turn."""
        return median(self.seconds)

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.second

    @property
    def speed(self) -> float:
        """Floating-point operations a second."""
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
    """Measure all rows in alternation.

    The first turn of each row counts its operations and the second its memory; neither is timed.

    Args:
        rows: By scenario, row and precision.
        device: Where they run.
        clock: Reads seconds.
        repeats: Turns of each that are timed.
        warmup: Further turns of each that are not.
        advance: Called with the key of the row whose turn is next.
    """
    results = {key: Result(*key) for key in rows}
    for key, row in rows.items():
        advance(key)
        results[key].flops = count_flops(row)
        results[key].images = row.images
    for key, row in rows.items():
        advance(key)
        results[key].peak = peak_memory(row, device)
    for index in range(warmup + repeats):
        for key, row in _rotate(list(rows.items()), index):
            advance(key)
            start = clock()
            row.turn()
            seconds = clock() - start
            if index < warmup:
                continue
            results[key].seconds.append(seconds)
            if row.loading is not None:
                results[key].loading.append(row.loading)
    return list(results.values())


def _rotate(items: list[Any], by: int) -> list[Any]:
    """Each round begins with another row, so that none always follows the same one."""
    by %= len(items)
    return items[by:] + items[:by]


def clock_of(name: str, device: torch.device) -> Clock:
    """Wall-clock (``wall``) or CPU (``cpu``) seconds, after the device has finished its work."""
    read = {"wall": time.perf_counter, "cpu": time.process_time}[name]
    if device.type != "cuda":
        return read

    def synchronize_and_read() -> float:
        torch.cuda.synchronize(device)
        return read()

    return synchronize_and_read


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
        kwargs = kwargs or {}
        value = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=value)
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
    reset_peak_resident()
    held = resident_memory()
    row.turn()
    peak = resident_memory(peak=True)
    return None if held is None or peak is None else max(0, peak - held)


def reset_peak_resident() -> None:
    """Return freed memory to the system and restart the peak from here."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def resident_memory(*, peak: bool = False) -> int | None:
    """Resident bytes, or the most since ``reset_peak_resident``; ``None`` if not available."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    name = "VmHWM:" if peak else "VmRSS:"
    values = [line.split()[1] for line in lines if line.startswith(name)]
    return 1024 * int(values[0]) if values else None


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor or GPU, threads, versions and load."""
    about = environment()
    if device.type != "cuda":
        about["device"] = processor_name()
    if hasattr(os, "getloadavg"):
        about["load"] = round(os.getloadavg()[0], 1)  # processes that wait for a core
    return about
