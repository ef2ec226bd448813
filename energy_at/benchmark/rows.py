"""What a row of the table is: it takes turns of equal work, in its own way."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch

from energy_at.benchmark.stepwise import Around
from energy_at.core.types import Images, Labels
from energy_at.data.loaders import Batch

Clock = Callable[[], float]


@runtime_checkable
class Row(Protocol):
    """One way to do the work of a scenario."""

    @property
    def images(self) -> int:
        """Images of a turn."""

    @property
    def loading(self) -> float | None:
        """Seconds of the last turn spent on images; ``None`` where they cannot be told apart."""

    def turn(self, around: Around = nullcontext) -> None:
        """Does the work of a turn, inside a context."""

    def close(self) -> None:
        """Lets go of everything."""


@dataclass
class Loop:
    """A loop in plain Python.

    Args:
        step: Does the work of a batch.
        batches: Without end.
        steps: Batches of a turn.
        device: Where the batches go.
        clock: Tells the seconds.
    """

    step: Callable[[Images, Labels], object]
    batches: Iterator[Batch]
    steps: int
    device: torch.device
    clock: Clock
    loading: float | None = field(default=None, init=False)
    images: int = field(default=0, init=False)

    def turn(self, around: Around = nullcontext) -> None:
        """Runs its steps."""
        self.loading, self.images = 0.0, 0
        with around():
            for _ in range(self.steps):
                start = self.clock()
                x, y = (part.to(self.device) for part in next(self.batches))
                self.loading += self.clock() - start
                self.step(x, y)
                self.images += len(y)

    def close(self) -> None:
        """Stops reading."""
        self.batches = iter(())


def endless(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same batches again and again."""
    while True:
        yield from batches


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """What Lightning wraps around a step of this precision."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
