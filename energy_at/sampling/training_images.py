"""The training images of every class, and what a network makes of them."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from energy_at.core.types import Images, Labels, Logits, Pixels
from energy_at.models.modes import eval_mode, full_precision, no_graph

BATCH = 256  # fixed, so that the same bits come out every time


@dataclass(frozen=True)
class TrainingImages:
    """Images as bytes, found by their class.

    Attributes:
        pixels: All of them.
        labels: Their classes.
        classes: Number of classes, those without images too.
    """

    pixels: Pixels
    labels: Labels
    classes: int
    _rows: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def of(self, label: int) -> Float[Tensor, "images pixels"]:
        """The images of a class as rows of pixels in [0, 1].

        Those of the class that was asked for last are kept: blocks of samples ask class by class.

        Raises:
            ValueError: if there are none.
        """
        if label not in self._rows:
            rows = as_rows(self.pixels[self.places(label)])
            self._rows.clear()  # floats of all classes would be four times the data set
            self._rows[label] = rows
        return self._rows[label]

    def places(self, label: int) -> Labels:
        """Where the images of a class are.

        Raises:
            ValueError: if there are none.
        """
        places = (self.labels == label).nonzero().flatten()
        if not len(places):
            raise ValueError(f"class {label} has no training images: no start can be fitted to it")
        return places

    def require_all(self) -> None:
        """Refuses classes of which there is nothing to learn.

        Raises:
            ValueError: with the first class that has no images.
        """
        for label in range(self.classes):
            self.places(label)

    def means(self) -> Images:
        """The mean image of every class."""
        shape = (self.classes, *self.pixels.shape[1:])
        return torch.stack([self.of(c).mean(0) for c in range(self.classes)]).reshape(shape)


def as_rows(pixels: Pixels) -> Float[Tensor, "images pixels"]:
    """Pixels in [0, 1], a row for each image."""
    return pixels.flatten(1).to(torch.float32) / 255


def embedded(
    net: nn.Module, pixels: Pixels, *, channels_last: bool = False
) -> tuple[Logits, Float[Tensor, "images features"]]:
    """Logits and features of images: what the last linear layer of the network is given.

    Raises:
        ValueError: if the network has no linear layer, or a logit is not finite.
    """
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError("the network has no linear layer to take features from: start.by=pixels")
    seen: list[Tensor] = []
    hook = linear[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    device = next(net.parameters()).device
    try:
        with eval_mode(net), full_precision(device.type), no_graph():
            parts = torch.split(pixels, BATCH)
            logits = [net(_floats(part, device, channels_last)) for part in parts]
    finally:
        hook.remove()
    found = torch.cat(logits).float()
    if not bool(torch.isfinite(found).all()):
        raise ValueError("the network's energies of its training images are not finite")
    return found, torch.cat(seen).flatten(1).float()


def _floats(pixels: Pixels, device: torch.device, channels_last: bool) -> Images:
    x = pixels.to(device).to(torch.float32) / 255
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x
