"""Wide ResNet (Zagoruyko & Komodakis, 2016) as the robustness literature writes it.

Layers are named as in TRADES (Zhang et al., 2019), so that its checkpoints fit.
"""

from torch import Tensor, nn

from energy_at.core.rules import require
from energy_at.models.layers import activation_function, conv3x3, require_positive


class WideBlock(nn.Module):
    """BN, activation, conv, BN, activation, conv.

    The shortcut is a 1x1 convolution from the first activation where the width grows.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        stride: int,
        activation: str = "relu",
        padding: str = "symmetric",
    ) -> None:
        super().__init__()
        self.activation = activation_function(activation)
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = conv3x3(channels_in, channels, stride, padding)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.convShortcut = (
            None
            if channels_in == channels
            else nn.Conv2d(channels_in, channels, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(out)
        out = self.conv2(self.activation(self.bn2(self.conv1(out))))
        total: Tensor = out + shortcut
        return total


class Stage(nn.Module):
    """Blocks of one width; the first may halve the size."""

    def __init__(
        self,
        depth: int,
        channels_in: int,
        channels: int,
        stride: int,
        activation: str,
        padding: str,
    ) -> None:
        super().__init__()
        first = WideBlock(channels_in, channels, stride, activation, padding)
        rest = (WideBlock(channels, channels, 1, activation) for _ in range(depth - 1))
        self.layer = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layer(x)
        return features


class WideResNet(nn.Module):
    """Three stages of ``(depth - 4) / 6`` blocks; the stem has ``width`` channels."""

    def __init__(
        self,
        *,
        depth: int,
        widen: int,
        channels: int,
        classes: int,
        width: int = 16,
        activation: str = "relu",
        padding: str = "symmetric",
    ) -> None:
        super().__init__()
        require_positive(channels=channels, classes=classes, width=width, widen=widen)
        require("depth", depth, ("6 n + 4 with n >= 1", lambda v: v >= 10 and v % 6 == 4))
        blocks = (depth - 4) // 6
        wide = width * widen
        self.activation = activation_function(activation)
        self.conv1 = conv3x3(channels, width)
        self.block1 = Stage(blocks, width, wide, 1, activation, padding)
        self.block2 = Stage(blocks, wide, 2 * wide, 2, activation, padding)
        self.block3 = Stage(blocks, 2 * wide, 4 * wide, 2, activation, padding)
        self.bn1 = nn.BatchNorm2d(4 * wide)
        self.fc = nn.Linear(4 * wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        logits: Tensor = self.fc(self.activation(self.bn1(out)).mean((2, 3)))
        return logits
