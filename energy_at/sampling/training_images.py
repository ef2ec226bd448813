"""Training images by class, and their logits and features under a network."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from energy_at.core.progress import Bar
from energy_at.core.types import Images, Labels, Pixels
from energy_at.data import ImageSet, as_floats
from energy_at.models.modes import eval_mode, full_precision, no_graph

Rows = Float[Tensor, "images pixels"]
Features = Float[Tensor, "images features"]
BATCH = 256  # fixed: the last bits depend on it


@dataclass(frozen=True)
class TrainingImages(ImageSet):
    """Training images of ``classes`` classes.

    Raises:
        ValueError: if a class has no images.
    """

    classes: int
    _rows: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if empty := sorted(set(range(self.classes)) - set(self.labels.unique().tolist())):
            raise ValueError(
                f"class {empty[0]} has no training images: no start can be fitted to it"
            )

    def of(self, label: int) -> Rows:
        """Images of a class as rows of pixels in [0, 1].

        The last class is cached, since samples are drawn class by class; the floats of all classes
        would take four times the memory of the data set.
        """
        if label not in self._rows:
            rows = as_rows(self.pixels[self.places(label)])
            self._rows.clear()
            self._rows[label] = rows
        return self._rows[label]

    def places(self, label: int) -> Labels:
        """Indices of the images of a class."""
        return (self.labels == label).nonzero().flatten()

    def means(self) -> Images:
        """Mean image of each class, shape (classes, channels, height, width)."""
        shape = (self.classes, *self.pixels.shape[1:])
        return torch.stack([self.of(c).mean(0) for c in range(self.classes)]).reshape(shape)


class Embedding(NamedTuple):
    """Logits and features of images under a network; rows are images."""

    logits: Float[Tensor, "images classes"]
    features: Features


def as_rows(pixels: Pixels) -> Rows:
    """Images as rows of pixels in [0, 1]."""
    return pixels.flatten(1).to(torch.float32) / 255


def logits_and_features(net: nn.Module, x: Images) -> Embedding:
    """Logits, and the input of the last linear layer.

    Raises:
        ValueError: if the network has no linear layer.
    """
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError("the network has no linear layer to take features from")
    features: list[Tensor] = []
    hook = linear[-1].register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    try:
        logits = net(x)
    finally:
        hook.remove()
    return Embedding(logits, torch.cat(features).flatten(1))


def embed(
    net: nn.Module,
    pixels: Pixels,
    *,
    channels_last: bool = False,
    progress: bool = False,
    label: str = "energies of training images",
) -> Embedding:
    """Logits and features of images, in evaluation mode and full precision.

    Raises:
        ValueError: if the network has no linear layer, or a logit is not finite.
    """
    device = next(net.parameters()).device
    found = []
    bar = Bar(total=len(pixels), desc=label, unit="img", visible=progress)
    with eval_mode(net), full_precision(device.type), no_graph(), bar:
        for part in torch.split(pixels, BATCH):
            found.append(logits_and_features(net, as_floats(part.to(device), channels_last)))
            bar.update(len(part))
    whole = Embedding(*(torch.cat(parts).float() for parts in zip(*found, strict=True)))
    if not bool(torch.isfinite(whole.logits).all()):
        raise ValueError("the network's energies of its training images are not finite")
    return whole
