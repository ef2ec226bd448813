"""Batches that several processes share: the part of each process, and the gathered batch.

Every process evaluates the objective, and measures energies, on the logits of the whole batch. Its
own logits carry their graph, those of the others are constants; so the gradients of all processes
sum up to that of one process with the whole batch, whatever the objective does with the batch.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from energy_at.core.rng import Noise, PartNoise


@dataclass(frozen=True)
class Part:
    """The images of a batch that one process works on: contiguous, in order of the processes."""

    whole: int  # images of the batch, of all processes together
    rank: int = 0  # number of this process
    world: int = 1  # number of processes

    @property
    def sizes(self) -> list[int]:
        """Images of each process: equal numbers, or one more in the first processes."""
        share, more = divmod(self.whole, self.world)
        return [share + (rank < more) for rank in range(self.world)]

    @property
    def place(self) -> slice:
        """Positions of the part in the batch."""
        first = sum(self.sizes[: self.rank])
        return slice(first, first + self.sizes[self.rank])

    def joined(self, own: Tensor) -> Tensor:
        """Values of all images of the batch, of which only the own ones keep their graph.

        All processes must call it together.
        """
        if self.world == 1:
            return own
        padded = own.new_zeros((max(self.sizes), *own.shape[1:]))
        padded[: len(own)] = own.detach()
        found = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(found, padded)
        parts = [values[:size] for values, size in zip(found, self.sizes, strict=True)]
        parts[self.rank] = own
        return torch.cat(parts)

    def noise(self, generator: torch.Generator) -> Noise:
        """Noise of the own images, given the generator of the whole batch."""
        return generator if self.world == 1 else PartNoise(generator, self.place, self.whole)


def summed(own: Tensor) -> Tensor:
    """The sum over all processes, with a graph that can be differentiated any number of times."""
    if not (dist.is_available() and dist.is_initialized()):
        return own
    total: Tensor = _Sum.apply(own)
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(own: Tensor) -> Tensor:
        total = own.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        del ctx, inputs, output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        del ctx
        return summed(grads[0])
