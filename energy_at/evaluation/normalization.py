"""Which normalization weights belong to whose file holds none: measured, not assumed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from energy_at.core.rules import one_of, require
from energy_at.core.types import Logits
from energy_at.data import ImageSet, as_floats
from energy_at.evaluation.robustness import Mask
from energy_at.models import Normalize, Normalized
from energy_at.models.modes import eval_mode, full_precision, no_graph

IMAGES = 256  # on which it is measured
NOISE = 3  # standard deviations; several readings are compared
ALIKE = 1.5  # factor between stds up to which two normalizations are the same reading
OF_DATASET, NONE = "of the data set", "none"
COMMON = {  # of colour images; the literature uses several
    "0.5 and 0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "of CIFAR-10 with std (0.2023, 0.1994, 0.2010)": (
        (0.4914, 0.4822, 0.4465),
        (0.2023, 0.1994, 0.2010),
    ),
    "of ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


@dataclass(frozen=True)
class Choice:
    """A normalization, and the correct images of all that were tried."""

    chosen: str
    correct: Mapping[str, int]
    images: int
    classes: int
    decided: bool  # whether the images exclude every normalization that differs much from it

    @property
    def counts(self) -> str:
        return counts_text(self.correct, self.images)

    def __str__(self) -> str:
        line = (
            f"the file holds no normalization: chosen {self.chosen}, by correct ones of "
            f"{self.counts}; normalize=dataset or none decides otherwise"
        )
        if self.correct[self.chosen] < 2 * self.images / self.classes:
            line += "; with none of them the network is much better than chance"
        return line

    def record(self) -> dict[str, Any]:
        return {"chosen": self.chosen, "correct": dict(self.correct), "images": self.images}


def choose_normalization(
    net: Normalized, images: ImageSet, classes: int, wish: str = "auto"
) -> Choice | None:
    """Gives a network the normalization with which it classifies the most images.

    That of the data set stays unless another one is better by more than the noise of the images on
    which they disagree (three standard deviations). The choice is ``decided`` if by that measure it
    is better than all others whose standard deviations are not nearly its own, or these give the
    same logits.

    Args:
        net: With the mean and std of the data set; changed in place.
        images: Of which ``IMAGES`` are drawn.
        classes: Their number.
        wish: ``auto``, or ``dataset`` or ``none``, which are not measured.

    Returns:
        What was measured; ``None`` if nothing was.
    """
    require(one_of("auto", "dataset", "none"), normalize=wish)
    own = net.normalize
    channels = own.mean.numel()
    plain = Normalize([0.0] * channels, [1.0] * channels).to(own.mean.device)
    if wish != "auto":
        net.normalize = plain if wish == "none" else own
        return None
    candidates = {OF_DATASET: own, NONE: plain}
    if channels == 3:
        candidates |= {k: Normalize(*v).to(own.mean.device) for k, v in COMMON.items()}
    few, logits = drawn(images).to(own.mean.device), {}
    for name, candidate in candidates.items():
        net.normalize = candidate
        logits[name] = logits_of(net, few)
    hits = {name: found.argmax(1) == few.labels for name, found in logits.items()}
    best = max(hits, key=lambda name: int(hits[name].sum()))
    chosen = best if is_better(hits[best], hits[OF_DATASET]) else OF_DATASET
    net.normalize = candidates[chosen]
    decided = all(
        is_better(hits[chosen], hits[name]) or same_logits(logits[chosen], logits[name])
        for name, candidate in candidates.items()
        if _differs(candidate, candidates[chosen])
    )
    correct = {name: int(hit.sum()) for name, hit in hits.items()}
    return Choice(chosen, correct, len(few), classes, decided)


def _differs(a: Normalize, b: Normalize) -> bool:
    """Whether they are two readings of a file, not two roundings of the same constants."""
    return bool(((a.std / b.std).log().abs() > math.log(ALIKE)).any())


def is_better(a: Mask, b: Mask) -> bool:
    """Whether ``a`` has more correct images, beyond the noise of those on which they disagree."""
    gain, disagree = int(a.sum() - b.sum()), int((a != b).sum())
    return gain > NOISE * math.sqrt(disagree)


def same_logits(a: Logits, b: Logits) -> bool:
    return bool(torch.allclose(a, b, rtol=1e-3, atol=1e-4))


def counts_text(correct: Mapping[str, int], images: int) -> str:
    return f"{images} images ({', '.join(f'{n} {name}' for name, n in correct.items())})"


def drawn(images: ImageSet) -> ImageSet:
    """The images on which is measured."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:IMAGES]
    return images.take(order)


def logits_of(net: nn.Module, images: ImageSet) -> Logits:
    """The logits of images that lie on the device of the network."""
    x = as_floats(images.pixels, False)
    with full_precision(x.device.type), eval_mode(net), no_graph():
        return torch.cat([net(part) for part in x.split(64)])
