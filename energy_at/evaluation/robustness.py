"""Which images stay right under attack, in fp32 and evaluation mode.

What becomes of an image does not depend on the images it shares a batch with: noise is a function
of seed, image and attempt. So any batch size, any subset and any interruption give the same. Only
the attacks of a library draw for all images of a block together: another subset, another outcome.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from tqdm import tqdm

from energy_at.attacks import Attack, LibraryAttack, WorstCase
from energy_at.core.rng import ImageNoise
from energy_at.core.types import Images, Labels, Logits
from energy_at.data import ImageSet, as_floats
from energy_at.models.modes import eval_mode, full_precision, no_graph
from energy_at.models.tiled import Tiled, tile_of

Mask = Bool[Tensor, " images"]
TOGETHER = 128  # images that an attack of a library searches at once, whatever the batch size


@runtime_checkable
class Journal(Protocol):
    """Remembers what has been found, for an evaluation that was cut off."""

    def known(self, task: str) -> Mapping[int, bool]:
        """Images that the task is done with, and whether each is still right."""

    def note(self, task: str, found: Mapping[int, bool]) -> None:
        """Keeps a finished batch."""


class NoJournal:
    """Remembers nothing."""

    def known(self, task: str) -> Mapping[int, bool]:
        """Nothing."""
        return {}

    def note(self, task: str, found: Mapping[int, bool]) -> None:
        """Forgets it."""


@dataclass(frozen=True)
class Exam:
    """Images that a network is judged by, on the network's device.

    Attributes:
        images: The images.
        numbers: The place of each in the set that it was taken from; the noise follows them.
        batch_size: Images that are searched at once.
        channels_last: Memory format of the batches.
        seed: Of the noise.
        journal: Where finished batches are kept.
        progress: Show a bar.
    """

    images: ImageSet
    numbers: Sequence[int] | None = None
    batch_size: int = 250
    channels_last: bool = False
    seed: int = 0
    journal: Journal = field(default_factory=NoJournal)
    progress: bool = False

    def outcomes(self, net: nn.Module, attacks: Mapping[str, Attack]) -> dict[str, Mask]:
        """Which images are right: ``"clean"``, and under each attack.

        An image that is wrong before an attack is wrong under it and is not attacked; one that an
        attempt has broken is left out of the attack's next attempts.

        Raises:
            ValueError: if the network returns anything but finite logits.
        """
        net = self.tiled(net)
        with eval_mode(net), full_precision(self.images.labels.device.type):
            clean = self._right(net, "clean")
            return {"clean": clean} | {
                name: self._survivors(net, name, attack, clean) for name, attack in attacks.items()
            }

    def accuracies(self, net: nn.Module, attacks: Mapping[str, Attack]) -> dict[str, float]:
        """Shares of images that stay right, and ``"n"``, the number of images."""
        found = self.outcomes(net, attacks)
        shares = {name: int(right.sum()) / len(right) for name, right in found.items()}
        return shares | {"n": len(self.images)}

    def tiled(self, net: nn.Module) -> Tiled:
        """The network as it is judged."""
        return Tiled(net, tile_of(self.images.labels.device))

    def classes(self, net: nn.Module) -> int:
        """The number of logits of the network.

        Raises:
            ValueError: if the network returns anything but finite logits.
        """
        net = self.tiled(net)
        with eval_mode(net), full_precision(self.images.labels.device.type):
            return finite_logits(net, self.batch(torch.arange(1))[0]).shape[1]

    def first(self, n: int) -> "Exam":
        """The exam on its first ``n`` images."""
        numbers = None if self.numbers is None else self.numbers[:n]
        return replace(self, images=self.images.first(n), numbers=numbers)

    def batch(self, positions: Labels) -> tuple[Images, Labels]:
        """The images at these positions, as the network takes them."""
        part = self.images.take(positions.to(self.images.labels.device))
        return as_floats(part.pixels, self.channels_last), part.labels

    def noise(self, positions: Labels, *parts: int) -> ImageNoise:
        """Noise of the images at these positions."""
        return ImageNoise.of([self._number(int(i)) for i in positions], self.seed, *parts)

    def _right(self, net: nn.Module, task: str) -> Mask:
        right = torch.zeros(len(self.images), dtype=torch.bool)
        for positions in self._work(task, right, torch.arange(len(right)), together=False):
            x, y = self.batch(positions)
            self._keep(task, positions, finite_logits(net, x).argmax(1) == y, right)
        return right

    def _survivors(self, net: nn.Module, name: str, attack: Attack, clean: Mask) -> Mask:
        right = clean.clone()
        attempts = attack.attacks if isinstance(attack, WorstCase) else [attack]
        for index, attempt in enumerate(attempts):
            task = f"{name} {index + 1}/{len(attempts)}" if len(attempts) > 1 else name
            todo = right.nonzero().flatten()
            together = isinstance(attempt, LibraryAttack)
            for positions in self._work(task, right, todo, together=together):
                x, y = self.batch(positions)
                noise = self.noise(positions, index)
                x_adv = attempt(net, x, y, generator=noise).x_adv
                self._keep(task, positions, finite_logits(net, x_adv).argmax(1) == y, right)
        return right

    def _work(self, task: str, right: Mask, todo: Labels, *, together: bool) -> Iterator[Labels]:
        """Batches of the positions that the task is not done with; those it is are filled in."""
        known = self.journal.known(task)
        fresh = []
        for i in todo.tolist():
            if self._number(i) in known:
                right[i] = known[self._number(i)]
            else:
                fresh.append(i)
        unfinished = torch.tensor(fresh, dtype=torch.long)
        with tqdm(
            total=len(todo),
            initial=len(todo) - len(fresh),
            desc=task,
            unit="img",
            leave=False,
            disable=not (self.progress and fresh),
        ) as bar:
            for positions in _grouped(unfinished, self.batch_size, together):
                yield positions
                bar.update(len(positions))
                share = int(right.sum()) / len(right)
                bar.set_postfix_str(f"{100 * share:.1f} % right", refresh=False)

    def _keep(
        self, task: str, positions: Labels, correct: Bool[Tensor, " batch"], right: Mask
    ) -> None:
        right[positions] = correct.cpu()
        numbers = [self._number(int(i)) for i in positions]
        self.journal.note(task, dict(zip(numbers, correct.tolist(), strict=True)))

    def _number(self, position: int) -> int:
        return position if self.numbers is None else self.numbers[position]


def _grouped(positions: Labels, batch_size: int, together: bool) -> Iterator[Labels]:
    if not together:
        batches = range(0, len(positions), batch_size)
        yield from (positions[first : first + batch_size] for first in batches)
        return
    for block in sorted(set((positions // TOGETHER).tolist())):
        yield positions[positions // TOGETHER == block]


def finite_logits(net: nn.Module, x: Images) -> Logits:
    """Logits without a graph.

    Raises:
        ValueError: unless all are finite.
    """
    with no_graph():
        logits = net(x)
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(
            "the network returns logits that are not finite: its weights are damaged, or its "
            "training has diverged"
        )
    return logits  # type: ignore[no-any-return]
