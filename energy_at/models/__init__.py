"""Classifiers of images in [0, 1]; every factory puts the normalization inside.

They take ``channels`` and ``classes``, ``mean`` and ``std`` of each channel, and options of their
network.
"""

from collections.abc import Sequence
from typing import Any

from energy_at.models.layers import Normalize, Normalized
from energy_at.models.libraries import custom, mlp_mixer, timm, torchvision
from energy_at.models.networks import PreActResNet, ResNet, SmallCNN, WideResNet

__all__ = [
    "Normalize",
    "Normalized",
    "PreActResNet",
    "ResNet",
    "SmallCNN",
    "WideResNet",
    "custom",
    "mlp_mixer",
    "preactresnet18",
    "resnet18",
    "small",
    "timm",
    "torchvision",
    "wideresnet",
]


def preactresnet18(*, mean: Sequence[float], std: Sequence[float], **options: Any) -> Normalized:
    """PreActResNet-18; 11.17 M parameters and 0.555 GMAC at width 64 on 3x32x32, 10 classes."""
    return Normalized(Normalize(mean, std), PreActResNet((2, 2, 2, 2), **options))


def resnet18(*, mean: Sequence[float], std: Sequence[float], **options: Any) -> Normalized:
    """ResNet-18 with batch norm after the convolutions; 11.17 M parameters at width 64."""
    return Normalized(Normalize(mean, std), ResNet((2, 2, 2, 2), **options))


def wideresnet(*, mean: Sequence[float], std: Sequence[float], **options: Any) -> Normalized:
    """WideResNet-``depth``-``widen``."""
    return Normalized(Normalize(mean, std), WideResNet(**options))


def small(*, mean: Sequence[float], std: Sequence[float], **options: Any) -> Normalized:
    """A small CNN without batch norm."""
    return Normalized(Normalize(mean, std), SmallCNN(**options))
