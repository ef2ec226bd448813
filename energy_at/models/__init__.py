"""Classifiers of images in [0, 1]; every factory puts the normalization inside."""

from collections.abc import Sequence

from energy_at.models.normalize import Normalize, Normalized
from energy_at.models.preact_resnet import PreActResNet
from energy_at.models.small import SmallCNN
from energy_at.models.wide_resnet import WideResNet

__all__ = [
    "Normalize",
    "Normalized",
    "PreActResNet",
    "SmallCNN",
    "WideResNet",
    "preactresnet18",
    "small",
    "wideresnet",
]


def preactresnet18(
    *, channels: int, classes: int, mean: Sequence[float], std: Sequence[float], width: int = 64
) -> Normalized:
    """PreActResNet-18; 11.17 M parameters and 0.555 GMAC at width 64 on 3x32x32, 10 classes."""
    _require_positive(channels=channels, classes=classes, width=width)
    net = PreActResNet((2, 2, 2, 2), channels=channels, classes=classes, width=width)
    return Normalized(Normalize(mean, std), net)


def wideresnet(
    *,
    channels: int,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    depth: int,
    widen: int,
    width: int = 16,
) -> Normalized:
    """WideResNet-``depth``-``widen``."""
    _require_positive(channels=channels, classes=classes, width=width, widen=widen)
    net = WideResNet(depth, widen, channels=channels, classes=classes, width=width)
    return Normalized(Normalize(mean, std), net)


def small(
    *, channels: int, classes: int, mean: Sequence[float], std: Sequence[float], width: int = 32
) -> Normalized:
    """A small CNN without batch norm."""
    _require_positive(channels=channels, classes=classes, width=width)
    net = SmallCNN(channels=channels, classes=classes, width=width)
    return Normalized(Normalize(mean, std), net)


def _require_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"model.{name} must be >= 1, got {size}")
