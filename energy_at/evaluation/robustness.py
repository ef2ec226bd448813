"""Which images are classified correctly under attack, in fp32 and evaluation mode.

The result of an image does not depend on the images it shares a batch with: noise is a function of
seed, image and attempt. So any batch size, subset or interruption gives the same result. Only
library attacks draw for all images of a block together: there another subset gives another result.
"""

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from energy_at.attacks import Attack, AttackOptions, WorstCase
from energy_at.attacks.base import require_bounded
from energy_at.attacks.registry import CLEAN, LABELS, AttackKey
from energy_at.core.progress import Bar, clock, has_bars, write_line
from energy_at.core.ranges import require_ranges
from energy_at.core.rng import ImageNoise, global_draws, mixed
from energy_at.core.types import Images, Labels, Logits
from energy_at.data import ImageSet, as_floats
from energy_at.models.modes import Tiled, eval_mode, full_precision, no_graph, tile_of
from energy_at.runs.result_folder import ResultFolder

Mask = Bool[Tensor, " images"]  # which images are classified correctly
Shares = Float[Tensor, " images"]
FORWARD = 1 / 3  # of a forward and a backward pass
LONG = 1000  # passes from which an attack is announced with an estimate of its duration
TOGETHER = 128  # images that a library attack searches at once, whatever the batch size


@dataclass
class Cost:
    """What a search has asked of the network."""

    calls: int = 0
    passes: int = 0  # images that it was called with, summed over the calls

    def add(self, other: "Cost") -> None:
        self.calls += other.calls
        self.passes += other.passes


@contextmanager
def counted(net: nn.Module) -> Iterator[Cost]:
    """Counts the calls of a network."""
    cost = Cost()

    def count(_: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        cost.add(Cost(1, len(next(iter((*args, *named.values()))))))

    hook = net.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield cost
    finally:
        hook.remove()


@dataclass(frozen=True)
class Outcome:
    """How images are classified: clean ones, or the last that an attack has made of each.

    Of an image that the attack breaks that is the first one that is misclassified.
    """

    correct: Mask
    confidence: Shares  # softmax of the predicted class
    cost: Cost = field(default_factory=Cost)  # of the attack's search

    @staticmethod
    def of(logits: Logits, y: Labels) -> "Outcome":
        confidence, prediction = logits.softmax(1).max(1)
        return Outcome((prediction == y).cpu(), confidence.cpu())

    def copy(self) -> "Outcome":
        return Outcome(self.correct.clone(), self.confidence.clone())


class Journal:
    """Finished batches in a file, one line each: a killed process loses at most one.

    The folder is claimed with the first batch.

    Raises:
        ValueError: if the file is damaged.
    """

    def __init__(self, folder: ResultFolder) -> None:
        self.folder = folder
        self.path = folder.path / "journal.jsonl"
        # by task: images that are finished, whether each is correct, and the confidence
        self.known: defaultdict[str, dict[int, tuple[bool, float]]] = defaultdict(dict)
        self.costs: defaultdict[str, Cost] = defaultdict(Cost)  # of these images, by task
        if self.path.is_file():
            self._read()

    def note(self, task: str, images: Sequence[int], found: Outcome) -> None:
        self.folder.claim()
        line = {
            "task": task,
            "images": images,
            "correct": found.correct.int().tolist(),
            "confidence": found.confidence.tolist(),
            "cost": asdict(found.cost),
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._remember(line)

    def _remember(self, line: Mapping[str, Any]) -> None:
        found = zip(map(bool, line["correct"]), line["confidence"], strict=True)
        self.known[line["task"]].update(zip(line["images"], found, strict=True))
        self.costs[line["task"]].add(Cost(**line["cost"]))

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]  # a kill may have cut the last line
        try:
            for line in whole.splitlines():
                self._remember(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is damaged: remove it to start again") from error
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))


@dataclass(frozen=True)
class Evaluator:
    """Attacks a network on fixed images, which lie on the network's device.

    The noise depends on ``numbers``, the index of each image in the split that it was taken from;
    by default its position in ``images``.
    """

    images: ImageSet
    numbers: Sequence[int] = ()
    batch_size: int = 250  # images that are attacked at once; it changes no result
    channels_last: bool = False
    seed: int = 0  # of the noise
    journal: Journal | None = None  # keeps finished batches
    progress: bool = False

    def __post_init__(self) -> None:
        require_ranges("evaluation.Evaluator", self)
        if not self.numbers:
            object.__setattr__(self, "numbers", range(len(self.images)))

    def correct(self, net: nn.Module, attacks: Mapping[AttackKey, Attack]) -> dict[AttackKey, Mask]:
        """Which images are classified correctly: ``CLEAN``, and under each attack."""
        return {key: found.correct for key, found in self.outcomes(net, attacks).items()}

    def outcomes(
        self, net: nn.Module, attacks: Mapping[AttackKey, Attack], *, later: float = 0.0
    ) -> dict[AttackKey, Outcome]:
        """How the images are classified: ``CLEAN``, and under each attack.

        A misclassified image counts as misclassified under every attack and is not attacked; one
        that an attempt has broken is left out of the attack's next attempts.

        Args:
            net: The network.
            attacks: By key.
            later: Passes of the work that follows, for the time left.

        Raises:
            ValueError: if the network returns anything but finite logits.
        """
        pace = Pace(FORWARD + sum(attack.passes for attack in attacks.values()), later)
        with self.evaluation_mode(net) as tiled:
            n = len(self.images)
            every = Outcome(torch.ones(n, dtype=torch.bool), torch.zeros(n))
            clean = self._resisting(tiled, str(CLEAN), None, every, pace)
            found = {CLEAN: clean}
            for key, attack in attacks.items():
                images = int(clean.correct.sum())
                if self.progress and attack.passes >= LONG and pace.is_known and images:
                    most = pace.estimate(attack.passes * images)
                    label = LABELS.get(key.name, key.name)
                    write_line(f"{label} on {images} images: about {most} or less")
                found[key] = self._resisting(tiled, str(key), attack, clean, pace)
                if self.progress and not has_bars() and pace.is_known:  # in a file, a line each
                    share, left = 100 * found[key].correct.float().mean(), pace.left(images, 0)
                    write_line(f"{key}: {share:.1f} % correct, at most {left} left in all")
            return found

    def accuracies(self, net: nn.Module, attacks: Mapping[str, Attack]) -> dict[str, float]:
        """Accuracies by attack, ``"clean"`` among them, and ``"n"``, the number of images."""
        found = self.correct(net, {AttackKey(name): attack for name, attack in attacks.items()})
        shares = {key.name: int(mask.sum()) / len(mask) for key, mask in found.items()}
        return shares | {"n": len(self.images)}

    @contextmanager
    def evaluation_mode(self, net: nn.Module) -> Iterator[Tiled]:
        """The network as it is evaluated: in tiles of fixed size, fp32 and evaluation mode."""
        device = self.images.labels.device
        tiled = Tiled(net, tile_of(device))
        with eval_mode(tiled), full_precision(device.type):
            yield tiled

    def classes(self, net: nn.Module) -> int:
        """The number of logits of the network; raises ``ValueError`` if they are not finite."""
        with self.evaluation_mode(net) as tiled:
            return finite_logits(tiled, self.batch(torch.arange(1))[0]).shape[1]

    def take(self, positions: Labels) -> "Evaluator":
        images = self.images.take(positions.to(self.images.labels.device))
        return replace(self, images=images, numbers=self._numbers(positions))

    def batch(self, positions: Labels) -> tuple[Images, Labels]:
        part = self.images.take(positions.to(self.images.labels.device))
        return as_floats(part.pixels, self.channels_last), part.labels

    def noise(self, positions: Labels, *parts: int) -> ImageNoise:
        return ImageNoise.of(self._numbers(positions), self.seed, *parts)

    def bar(self, task: str, total: int, initial: int = 0, *, left: str = "") -> Bar:
        """A bar of images, within 80 columns with what is set as its postfix."""
        form = f"{{desc}} |{{bar}}| {{n_fmt}}/{{total_fmt}}{{postfix}}{left}"
        visible = self.progress and initial < total
        return Bar(desc=task, total=total, initial=initial, bar_format=form, visible=visible)

    def _resisting(
        self, net: nn.Module, name: str, attack: Attack | None, before: Outcome, pace: "Pace"
    ) -> Outcome:
        """How images are classified under an attack, which tries those that are correct before."""
        result = before.copy()
        attempts = attack.attacks if isinstance(attack, WorstCase) else [attack]
        for index, attempt in enumerate(attempts):
            task = f"{name} {index + 1}/{len(attempts)}" if len(attempts) > 1 else name
            together = attempt is not None and attempt.searches_together
            passes = FORWARD if attempt is None else attempt.passes
            if self.journal is not None:
                result.cost.add(self.journal.costs[task])
            for positions in self._work(task, result, passes, pace, together=together):
                x, y = self.batch(positions)
                x_adv = x
                own = mixed(self.seed, index, *self._numbers(positions[:1]))
                with global_draws(x.device, own):  # of a network that draws random numbers
                    with counted(net) as cost:
                        if attempt is not None:
                            noise = self.noise(positions, index)
                            x_adv = attempt.run(net, x, y, AttackOptions(generator=noise)).x_adv
                    logits = finite_logits(net, x_adv)
                found = replace(Outcome.of(logits, y), cost=cost)
                if attempt is not None:
                    bounds = attempt.extremes(x, x_adv).tolist()
                    require_bounded(*bounds, place=f" (attack {name})")
                result.cost.add(cost)
                result.correct[positions] = found.correct
                result.confidence[positions] = found.confidence
                if self.journal is not None:
                    self.journal.note(task, self._numbers(positions), found)
        return result

    def _work(
        self, task: str, result: Outcome, passes: float, pace: "Pace", *, together: bool
    ) -> Iterator[Labels]:
        """Batches of the correct images; results that the journal knows are filled in."""
        known = {} if self.journal is None else self.journal.known[task]
        correct = result.correct
        todo = correct.nonzero().flatten()
        is_known = torch.tensor([n in known for n in self._numbers(todo)], dtype=torch.bool)
        positions = todo[~is_known]
        for position in todo[is_known].tolist():
            correct[position], result.confidence[position] = known[self.numbers[position]]
        batches = batched(positions, self.batch_size)
        if together:  # one block of images after the other
            blocks = positions // TOGETHER
            batches = (positions[blocks == block] for block in blocks.unique())
        pace.begin(passes)
        with self.bar(task, len(todo), len(todo) - len(positions)) as bar:
            for batch in batches:
                yield batch
                pace.count(passes * len(batch))
                bar.update(len(batch))
                share = f"{100 * int(correct.sum()) / len(correct):.1f} % correct"
                missing = passes * (len(todo) - bar.n)
                left = pace.left(int(correct.sum()), missing)
                bar.set_postfix_str(f"{share}, {left} left in all", refresh=False)

    def _numbers(self, positions: Labels) -> list[int]:
        return [self.numbers[i] for i in positions.tolist()]


class Pace:
    """How long an evaluation still takes, from the rate of its passes so far.

    A pass is a forward and a backward pass of one image. All attacks count as if they broke no
    further image, so the time left is an upper estimate.

    Args:
        planned: Passes of an image, under all attacks.
        later: Passes of all images in the work that follows.
    """

    def __init__(self, planned: float, later: float = 0.0) -> None:
        self.planned, self.later = planned, later
        self._start, self._done = time.monotonic(), 0.0

    @property
    def is_known(self) -> bool:
        return self._done > 0

    def begin(self, passes: float) -> None:
        """Takes an attack, or one attempt of it, off the plan."""
        self.planned -= passes

    def count(self, passes: float) -> None:
        self._done += passes

    def estimate(self, passes: float) -> str:
        """The time of ``passes`` passes, once some were counted."""
        return clock(passes * (time.monotonic() - self._start) / self._done)

    def left(self, images: int, missing: float) -> str:
        """The time left: ``missing`` passes of this attack, the others on ``images`` images."""
        return self.estimate(missing + self.later + images * self.planned)


def batched(positions: Labels, size: int) -> Iterator[Labels]:
    """Parts of this size; the last one may be smaller."""
    yield from (positions[first : first + size] for first in range(0, len(positions), size))


def finite_logits(net: nn.Module, x: Images) -> Logits:
    """Logits without a graph; raises ``ValueError`` unless all are finite."""
    with no_graph():
        logits: Logits = net(x)
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(
            "the network returns logits that are not finite: its weights are damaged, or its "
            "training has diverged"
        )
    return logits
