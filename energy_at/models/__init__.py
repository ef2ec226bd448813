"""Classifiers of images in [0, 1]; every factory puts the normalization inside."""

from collections.abc import Sequence

from energy_at.core.rules import integer, require
from energy_at.models.layers import Normalize, Normalized
from energy_at.models.preact_resnet import PreActResNet
from energy_at.models.resnet import ResNet
from energy_at.models.small import SmallCNN
from energy_at.models.wide_resnet import WideResNet

__all__ = [
    "Normalize",
    "Normalized",
    "PreActResNet",
    "ResNet",
    "SmallCNN",
    "WideResNet",
    "preactresnet18",
    "resnet18",
    "small",
    "wideresnet",
]


def preactresnet18(
    *,
    channels: int,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    width: int = 64,
    activation: str = "relu",
    shortcut: str = "activated",
    padding: str = "symmetric",
    final_norm: bool = True,
) -> Normalized:
    """PreActResNet-18; 11.17 M parameters and 0.555 GMAC at width 64 on 3x32x32, 10 classes."""
    _require_positive(channels=channels, classes=classes, width=width)
    net = PreActResNet(
        (2, 2, 2, 2),
        channels=channels,
        classes=classes,
        width=width,
        activation=activation,
        shortcut=shortcut,
        padding=padding,
        final_norm=final_norm,
    )
    return Normalized(Normalize(mean, std), net)


def resnet18(
    *,
    channels: int,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    width: int = 64,
    activation: str = "relu",
) -> Normalized:
    """ResNet-18 with batch norm after the convolutions; 11.17 M parameters at width 64."""
    _require_positive(channels=channels, classes=classes, width=width)
    net = ResNet(
        (2, 2, 2, 2), channels=channels, classes=classes, width=width, activation=activation
    )
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
    activation: str = "relu",
    padding: str = "symmetric",
) -> Normalized:
    """WideResNet-``depth``-``widen``."""
    _require_positive(channels=channels, classes=classes, width=width, widen=widen)
    net = WideResNet(
        depth,
        widen,
        channels=channels,
        classes=classes,
        width=width,
        activation=activation,
        padding=padding,
    )
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
        require(name, size, integer(1))
