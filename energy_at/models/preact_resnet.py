"""Pre-activation ResNet-18 for small images (He et al., 2016), the network of fast AT.

As in Rice et al. (2020): a 3x3 stem without pooling, and batch norm before the classifier. Layers
are named as there, so that checkpoints fit; ``shortcut="plain"`` and ``final_norm=False`` make the
network that RobustBench has of Wong et al. (2020), ``shortcut="plain3x3"`` and ``padding="same"``
the one of Gowal et al. (2020).
"""

from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor, nn

from energy_at.core.rules import TRUTH, one_of, require
from energy_at.models.layers import activation_function, conv3x3, require_positive

Shortcut = Literal["activated", "plain", "plain3x3"]


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
        widths = [width, *(width * 2**stage for stage in range(len(blocks)))]
        self.conv1 = conv3x3(channels, width)
        for stage, (depth, (before, after)) in enumerate(
            zip(blocks, pairwise(widths), strict=True), 1
        ):
            parts = [
                PreActBlock(
                    before if block == 0 else after,
                    after,
                    stride=2 if block == 0 and stage > 1 else 1,
                    activation=activation,
                    shortcut=shortcut,
                    padding=padding,
                )
                for block in range(depth)
            ]
            setattr(self, f"layer{stage}", nn.Sequential(*parts))
        self.stages = len(blocks)
        if final_norm:
            self.bn = nn.BatchNorm2d(widths[-1])
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(x)
        for stage in range(1, self.stages + 1):
            out = getattr(self, f"layer{stage}")(out)
        if hasattr(self, "bn"):
            out = self.activation(self.bn(out))
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits
