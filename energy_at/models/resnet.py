"""ResNet-18 for small images (He et al., 2016), with batch norm after or before the convolutions.

Both have a 3x3 stem without pooling. ``ResNet`` is as TRADES, AWP and RobustBench write it;
``PreActResNet``, the network of fast AT, as in Rice et al. (2020), with batch norm before the
classifier. Layers are named as there, so that checkpoints fit; ``shortcut="plain"`` and
``final_norm=False`` make the network that RobustBench has of Wong et al. (2020),
``shortcut="plain3x3"`` and ``padding="same"`` the one of Gowal et al. (2020).
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor, nn

from energy_at.core.rules import TRUTH, one_of, require
from energy_at.models.layers import activation_function, conv3x3, require_positive

Shortcut = Literal["activated", "plain", "plain3x3"]


def make_stages(
    blocks: tuple[int, ...], width: int, make_block: Callable[[int, int, int], nn.Module]
) -> dict[str, nn.Sequential]:
    """Stages by name, each half the size and twice the channels of the one before.

    Args:
        blocks: Of each stage.
        width: Channels of the first stage.
        make_block: A block of channels in, channels out, and stride.
    """
    widths = [width, *(width * 2**stage for stage in range(len(blocks)))]
    stages = {}
    for stage, (depth, (before, after)) in enumerate(zip(blocks, pairwise(widths), strict=True), 1):
        first = make_block(before, after, 1 if stage == 1 else 2)
        rest = (make_block(after, after, 1) for _ in range(depth - 1))
        stages[f"layer{stage}"] = nn.Sequential(first, *rest)
    return stages


class BasicBlock(nn.Module):
    """Conv, BN, activation, conv, BN, plus the shortcut, activation."""

    def __init__(self, channels_in: int, channels: int, stride: int, activation: str) -> None:
        super().__init__()
        self.activation = activation_function(activation)
        self.conv1 = conv3x3(channels_in, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.shortcut.append(nn.Conv2d(channels_in, channels, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(self.conv1(x)))
        return self.activation(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """Four stages of basic blocks, each half the size and twice the channels."""

    def __init__(
        self,
        blocks: tuple[int, ...],
        *,
        channels: int,
        classes: int,
        width: int = 64,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        require_positive(channels=channels, classes=classes, width=width)
        self.activation = activation_function(activation)
        self.conv1 = conv3x3(channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        stages = make_stages(blocks, width, partial(BasicBlock, activation=activation))
        for name, stage in stages.items():
            self.add_module(name, stage)
        self.stages = tuple(stages)
        self.linear = nn.Linear(width * 2 ** (len(blocks) - 1), classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(self.conv1(x)))
        for name in self.stages:
            out = getattr(self, name)(out)
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


class PreActBlock(nn.Module):
    """BN, activation, conv, BN, activation, conv, and a shortcut.

    Where the size changes the shortcut is a convolution: 1x1 from the first activation, 1x1 from
    the block's input (``plain``), or 3x3 from the block's input (``plain3x3``).
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        stride: int,
        *,
        activation: str = "relu",
        shortcut: str = "activated",
        padding: str = "symmetric",
    ) -> None:
        super().__init__()
        self.activation = activation_function(activation)
        self.shortcut_activated = shortcut == "activated"
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = conv3x3(channels_in, channels, stride, padding)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                conv3x3(channels_in, channels, stride, padding)
                if shortcut == "plain3x3"
                else nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(x))
        shortcut = x
        if hasattr(self, "shortcut"):
            shortcut = self.shortcut(out if self.shortcut_activated else x)
        out = self.conv2(self.activation(self.bn2(self.conv1(out))))
        total: Tensor = out + shortcut
        return total


class PreActResNet(nn.Module):
    """Four stages of pre-activation blocks, each half the size and twice the channels.

    Args:
        blocks: Of each stage.
        channels: Of the images.
        classes: Number of logits.
        width: Channels of the first stage.
        activation: ``"relu"`` or ``"silu"``.
        shortcut: ``"activated"``, ``"plain"`` or ``"plain3x3"``.
        padding: Of convolutions of stride 2, ``"symmetric"`` or ``"same"``.
        final_norm: Whether batch norm comes before the classifier.
    """

    def __init__(
        self,
        blocks: tuple[int, ...],
        *,
        channels: int,
        classes: int,
        width: int = 64,
        activation: str = "relu",
        shortcut: str = "activated",
        padding: str = "symmetric",
        final_norm: bool = True,
    ) -> None:
        super().__init__()
        require_positive(channels=channels, classes=classes, width=width)
        require("shortcut", shortcut, one_of(*get_args(Shortcut)))
        require("final_norm", final_norm, TRUTH)
        self.activation = activation_function(activation)
        self.conv1 = conv3x3(channels, width)
        block = partial(PreActBlock, activation=activation, shortcut=shortcut, padding=padding)
        stages = make_stages(blocks, width, block)
        for name, stage in stages.items():
            self.add_module(name, stage)
        self.stages = tuple(stages)
        if final_norm:
            self.bn = nn.BatchNorm2d(width * 2 ** (len(blocks) - 1))
        self.linear = nn.Linear(width * 2 ** (len(blocks) - 1), classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(x)
        for name in self.stages:
            out = getattr(self, name)(out)
        if hasattr(self, "bn"):
            out = self.activation(self.bn(out))
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits
