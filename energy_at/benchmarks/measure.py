"""Takes turns: every row in every round, so that all of them meet the same machine."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from tqdm import tqdm

from energy_at.benchmarks.rows import Clock, Row
from energy_at.memory import (
    forget_peak,
    keep_freed_memory,
    peak_resident,
    resident,
)

CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass
class Measured:
    """What is known of a row.

    Attributes:
        images: Of a turn.
        seconds: Of each turn.
        loading: Seconds of each turn that went into images; empty where nobody could tell.
        flops: Of a turn.
        peak: Bytes at the peak of a turn beyond those held before; ``None`` if nobody tells.
    """

    images: int = 0
    seconds: list[float] = field(default_factory=list)
    loading: list[float] = field(default_factory=list)
    flops: float = 0.0
    peak: int | None = None

    @property
    def second(self) -> float:
        """Median of a turn."""
        return median(self.seconds)


def clock_of(name: str, device: torch.device) -> Clock:
    """Seconds of the wall, or of the processor; of work that the device has finished."""
    read = CLOCKS[name]
    if device.type != "cuda":
        return read

    def finished() -> float:
        torch.cuda.synchronize(device)
        return read()

    return finished


def take_turns(
    rows: Mapping[Any, Row],
    *,
    rounds: int,
    warmup: int,
    clock: Clock,
    device: torch.device,
    advance: Callable[[Any], object],
) -> dict[Any, Measured]:
    """Measures all rows in alternation.

    The first turn of each row counts its work and the second its memory; neither is timed.

    Args:
        rows: By any name.
        rounds: Turns of each that are timed.
        warmup: Further turns of each that are not.
        clock: Tells the seconds.
        device: Where they run.
        advance: Is told the name of the row whose turn is next.
    """
    found = {name: Measured() for name in rows}
    keep_freed_memory()  # for all rows: what one has freed is in reach of the others anyway
    for name, row in rows.items():
        advance(name)
        found[name].flops = _work(row)
        found[name].images = row.images
    for name, row in rows.items():
        advance(name)
        found[name].peak = _peak(row, device)
    for index in range(warmup + rounds):
        for name, row in _rotated(rows, index):
            advance(name)
            start = clock()
            row.turn()
            if index < warmup:
                continue
            found[name].seconds.append(clock() - start)
            if row.loading is not None:
                found[name].loading.append(row.loading)
    return found


@contextmanager
def progress(total: int, *, shown: bool) -> Iterator[Callable[[str], None]]:
    """A bar over turns: those done, their rate, the time left, and what runs now."""
    with tqdm(total=total, unit="turn", disable=not shown) as bar:
        first = True

        def advance(name: str) -> None:
            nonlocal first
            bar.update(0 if first else 1)
            bar.set_postfix_str(name)
            first = False

        yield advance
        bar.update(0 if first else 1)


class Work(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts floating-point operations by torch's own formulas.

    Torch's counter refuses a gradient by what a module takes in, as sampling asks for.
    """

    flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the operation and adds what it takes."""
        kwargs = kwargs or {}
        value = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=value)
        return value


def _work(row: Row) -> float:
    counter = Work()  # type: ignore[no-untyped-call]
    row.turn(lambda: counter)
    return float(counter.flops)


def _peak(row: Row, device: torch.device) -> int | None:
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        row.turn()
        return torch.cuda.max_memory_allocated(device) - before
    forget_peak()
    held = resident()
    row.turn()
    highest = peak_resident()
    return None if held is None or highest is None else max(0, highest - held)


def _rotated(rows: Mapping[Any, Row], by: int) -> list[tuple[Any, Row]]:
    """Each round begins with another row: none always follows the same."""
    items = list(rows.items())
    by %= len(items)
    return items[by:] + items[:by]
