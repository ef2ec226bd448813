"""Which normalization weights belong to whose file holds none: measured, not assumed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from energy_at.core.rules import one_of, require
from energy_at.data import ImageSet, as_floats
from energy_at.evaluation.robustness import Mask
from energy_at.models import Normalize, Normalized
from energy_at.models.modes import eval_mode, full_precision, no_graph

IMAGES = 256  # on which it is measured
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

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.correct.items())
        line = (
            f"the file holds no normalization: chosen {self.chosen}, by correct ones of "
            f"{self.images} images ({counts}); normalize=dataset or none decides otherwise"
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
    which they disagree (two standard deviations).

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
    few, hits = drawn(images).to(own.mean.device), {}
    for name, candidate in candidates.items():
        net.normalize = candidate
        hits[name] = classified(net, few)
    best = max(hits, key=lambda name: int(hits[name].sum()))
    gain = int(hits[best].sum() - hits[OF_DATASET].sum())
    disagree = int((hits[best] != hits[OF_DATASET]).sum())
    chosen = best if gain > 2 * disagree**0.5 else OF_DATASET
    net.normalize = candidates[chosen]
    return Choice(chosen, {k: int(v.sum()) for k, v in hits.items()}, len(few), classes)


def drawn(images: ImageSet) -> ImageSet:
    """The images on which is measured."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:IMAGES]
    return images.take(order)


def classified(net: nn.Module, images: ImageSet) -> Mask:
    """Which images, on the device of a network, it classifies correctly."""
    x = as_floats(images.pixels, False)
    with full_precision(x.device.type), eval_mode(net), no_graph():
        logits = torch.cat([net(part) for part in x.split(64)])
    return logits.argmax(1) == images.labels
