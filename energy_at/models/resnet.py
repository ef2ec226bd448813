"""ResNet-18 for small images (He et al., 2016), as TRADES, AWP and RobustBench write it.

A 3x3 stem without pooling; layers are named as there, so that their checkpoints fit.
"""

from itertools import pairwise

from torch import Tensor, nn

from energy_at.models.layers import activation_function, conv3x3, require_positive


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
        widths = [width, *(width * 2**stage for stage in range(len(blocks)))]
        self.conv1 = conv3x3(channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        for stage, (depth, (before, after)) in enumerate(
            zip(blocks, pairwise(widths), strict=True), 1
        ):
            first = BasicBlock(before, after, 1 if stage == 1 else 2, activation)
            rest = (BasicBlock(after, after, 1, activation) for _ in range(depth - 1))
            setattr(self, f"layer{stage}", nn.Sequential(first, *rest))
        self.stages = len(blocks)
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(self.conv1(x)))
        for stage in range(1, self.stages + 1):
            out = getattr(self, f"layer{stage}")(out)
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits
