"""Which images are classified correctly under attack, in fp32 and evaluation mode.

The result of an image does not depend on the images it shares a batch with: noise is a function of
seed, image and attempt. So any batch size, subset or interruption gives the same result. Only
library attacks draw for all images of a block together: there another subset gives another result.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from tqdm import tqdm

from energy_at.attacks import Attack, LibraryAttack, WorstCase
from energy_at.attacks.registry import CLEAN, AttackKey
from energy_at.core.rng import ImageNoise
from energy_at.core.types import Images, Labels, Logits
from energy_at.data import ImageSet, as_floats
from energy_at.models.modes import eval_mode, full_precision, no_graph
from energy_at.models.tiled import Tiled, tile_of
from energy_at.runs.result_folder import ResultFolder

Mask = Bool[Tensor, " images"]  # which images are classified correctly
TOGETHER = 128  # images that a library attack searches at once, whatever the batch size


class Journal:
    """Finished batches in a file, one line each: a killed process loses at most one.

    Args:
        folder: Of the evaluation; claimed with the first batch.

    Raises:
        ValueError: if the file is damaged.
    """

    def __init__(self, folder: ResultFolder) -> None:
        self.folder = folder
        self.path = folder.path / "journal.jsonl"
        self._known: dict[str, dict[int, bool]] = {}
        if self.path.is_file():
            self._read()

    def known(self, task: str) -> Mapping[int, bool]:
        """Images that the task has finished, and whether each is classified correctly."""
        return self._known.get(task, {})

    def note(self, task: str, correct: Mapping[int, bool]) -> None:
        """Writes a finished batch."""
        self.folder.claim()
        line = {"task": task, "images": list(correct), "right": [int(c) for c in correct.values()]}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._known.setdefault(task, {}).update(correct)

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]  # a kill may have cut the last line
        try:
            for line in whole.splitlines():
                entry = json.loads(line)
                correct = zip(entry["images"], map(bool, entry["right"]), strict=True)
                self._known.setdefault(entry["task"], {}).update(correct)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is damaged: remove it to start again") from error
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))


@dataclass(frozen=True)
class Evaluator:
    """Attacks a network on fixed images, which lie on the network's device.

    Attributes:
        images: The images.
        numbers: Index of each in the split that it was taken from; the noise depends on it.
        batch_size: Images that are attacked at once; it changes no result.
        channels_last: Memory format of the batches.
        seed: Of the noise.
        journal: Keeps finished batches, if there is one.
        progress: Show a bar.
    """

    images: ImageSet
    numbers: Sequence[int] | None = None
    batch_size: int = 250
    channels_last: bool = False
    seed: int = 0
    journal: Journal | None = None
    progress: bool = False

    def correct(self, net: nn.Module, attacks: Mapping[AttackKey, Attack]) -> dict[AttackKey, Mask]:
        """Which images are classified correctly: ``CLEAN``, and under each attack.

        A misclassified image counts as misclassified under every attack and is not attacked; one
        that an attempt has broken is left out of the attack's next attempts.

        Raises:
            ValueError: if the network returns anything but finite logits.
        """
        net = self.tiled(net)
        with eval_mode(net), full_precision(self.images.labels.device.type):
            clean = self._clean(net)
            return {CLEAN: clean} | {
                key: self._under_attack(net, str(key), attack, clean)
                for key, attack in attacks.items()
            }

    def accuracies(self, net: nn.Module, attacks: Mapping[str, Attack]) -> dict[str, float]:
        """Accuracies by attack, ``"clean"`` among them, and ``"n"``, the number of images."""
        found = self.correct(net, {AttackKey(name): attack for name, attack in attacks.items()})
        shares = {key.name: int(mask.sum()) / len(mask) for key, mask in found.items()}
        return shares | {"n": len(self.images)}

    def tiled(self, net: nn.Module) -> Tiled:
        """The network as it is evaluated: in tiles of fixed size."""
        return Tiled(net, tile_of(self.images.labels.device))

    def classes(self, net: nn.Module) -> int:
        """The number of logits of the network.

        Raises:
            ValueError: if the network returns anything but finite logits.
        """
        net = self.tiled(net)
        with eval_mode(net), full_precision(self.images.labels.device.type):
            return finite_logits(net, self.batch(torch.arange(1))[0]).shape[1]

    def first(self, n: int) -> "Evaluator":
        """The same on the first ``n`` images."""
        numbers = None if self.numbers is None else self.numbers[:n]
        return replace(self, images=self.images.first(n), numbers=numbers)

    def batch(self, positions: Labels) -> tuple[Images, Labels]:
        """The images at these positions, as the network takes them."""
        part = self.images.take(positions.to(self.images.labels.device))
        return as_floats(part.pixels, self.channels_last), part.labels

    def noise(self, positions: Labels, *parts: int) -> ImageNoise:
        """Noise of the images at these positions."""
        return ImageNoise.of([self._number(int(i)) for i in positions], self.seed, *parts)

    def _clean(self, net: nn.Module) -> Mask:
        correct = torch.zeros(len(self.images), dtype=torch.bool)
        task = str(CLEAN)
        for positions in self._work(task, correct, torch.arange(len(correct)), together=False):
            x, y = self.batch(positions)
            self._keep(task, positions, finite_logits(net, x).argmax(1) == y, correct)
        return correct

    def _under_attack(self, net: nn.Module, name: str, attack: Attack, clean: Mask) -> Mask:
        correct = clean.clone()
        attempts = attack.attacks if isinstance(attack, WorstCase) else [attack]
        for index, attempt in enumerate(attempts):
            task = f"{name} {index + 1}/{len(attempts)}" if len(attempts) > 1 else name
            todo = correct.nonzero().flatten()
            together = isinstance(attempt, LibraryAttack)
            for positions in self._work(task, correct, todo, together=together):
                x, y = self.batch(positions)
                noise = self.noise(positions, index)
                x_adv = attempt(net, x, y, generator=noise).x_adv
                self._keep(task, positions, finite_logits(net, x_adv).argmax(1) == y, correct)
        return correct

    def _work(self, task: str, correct: Mask, todo: Labels, *, together: bool) -> Iterator[Labels]:
        """Batches of the positions that the journal does not know; the others are filled in."""
        known = {} if self.journal is None else self.journal.known(task)
        fresh = []
        for i in todo.tolist():
            if self._number(i) in known:
                correct[i] = known[self._number(i)]
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
                share = int(correct.sum()) / len(correct)
                bar.set_postfix_str(f"{100 * share:.1f} % correct", refresh=False)

    def _keep(
        self, task: str, positions: Labels, found: Bool[Tensor, " batch"], correct: Mask
    ) -> None:
        correct[positions] = found.cpu()
        if self.journal is not None:
            numbers = [self._number(int(i)) for i in positions]
            self.journal.note(task, dict(zip(numbers, found.tolist(), strict=True)))

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
        logits: Logits = net(x)
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(
            "the network returns logits that are not finite: its weights are damaged, or its "
            "training has diverged"
        )
    return logits
