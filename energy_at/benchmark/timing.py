"""Takes turns: every row in every round, so that all of them meet the same machine."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from tqdm import tqdm

from energy_at.benchmark.rows import Clock, Row
from energy_at.core.memory import forget_peak, peak_resident, resident

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


@runtime_checkable
class Turns(Protocol):
    """A row as it is measured, in this process or in another."""

    def work(self) -> tuple[int, float]:
        """Images of a turn and its floating-point operations, counted while it runs."""

    def peak(self) -> int | None:
        """Bytes at the peak of a turn beyond those held before; ``None`` if nobody tells."""

    def timed(self) -> tuple[float, float | None]:
        """Seconds of a turn and of its loading, where that can be told apart."""

    def close(self) -> None:
        """Lets go of everything."""


@dataclass(frozen=True)
class Here:
    """A row of this process.

    Args:
        row: Does the work.
        device: Where it runs.
        clock: Tells the seconds.
    """

    row: Row
    device: torch.device
    clock: Clock

    def work(self) -> tuple[int, float]:
        """Images and operations of a turn."""
        counter = Work()  # type: ignore[no-untyped-call]
        with torch.compiler.set_stance("force_eager"):  # nobody sees into what is compiled
            self.row.turn(lambda: counter)
        return self.row.images, float(counter.flops)

    def peak(self) -> int | None:
        """Bytes of a turn."""
        if self.device.type == "cuda":
            before = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self.row.turn()
            return torch.cuda.max_memory_allocated(self.device) - before
        forget_peak()
        held = resident()
        self.row.turn()
        highest = peak_resident()
        return None if held is None or highest is None else max(0, highest - held)

    def timed(self) -> tuple[float, float | None]:
        """Seconds of a turn."""
        start = self.clock()
        self.row.turn()
        return self.clock() - start, self.row.loading

    def close(self) -> None:
        """Closes the row."""
        self.row.close()


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
    rows: Mapping[Any, Turns],
    *,
    rounds: int,
    warmup: int,
    advance: Callable[[Any], object],
) -> dict[Any, Measured]:
    """Measures all rows in alternation.

    The first turn of each row counts its work and the second its memory; neither is timed.

    Args:
        rows: By any name.
        rounds: Turns of each that are timed.
        warmup: Further turns of each that are not.
        advance: Is told the name of the row whose turn is next.
    """
    found = {name: Measured() for name in rows}
    for name, row in rows.items():
        advance(name)
        found[name].images, found[name].flops = row.work()
    for name, row in rows.items():
        advance(name)
        found[name].peak = row.peak()
    for index in range(warmup + rounds):
        for name, row in _rotated(rows, index):
            advance(name)
            seconds, loading = row.timed()
            if index < warmup:
                continue
            found[name].seconds.append(seconds)
            if loading is not None:
                found[name].loading.append(loading)
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


def _rotated(rows: Mapping[Any, Turns], by: int) -> list[tuple[Any, Turns]]:
    """Each round begins with another row: none always follows the same."""
    items = list(rows.items())
    by %= len(items)
    return items[by:] + items[:by]
