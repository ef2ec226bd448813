"""Pre-activation ResNet-18 for small images (He et al., 2016), the network of fast AT.

As in the adversarial-training literature (Wong et al., 2020; Rice et al., 2020): a 3x3 stem
without pooling, and batch norm before the classifier. Layers are named as there, so that their
checkpoints fit.
"""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


class PreActBlock(nn.Module):
    """BN, ReLU, conv, BN, ReLU, conv; the shortcut starts after the first activation."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Features of the next block."""
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
        out = self.conv2(F.relu(self.bn2(self.conv1(out))))
        return out + shortcut  # type: ignore[no-any-return]


class PreActResNet(nn.Module):
    """Four stages of pre-activation blocks, each half the size and twice the channels."""

    def __init__(self, blocks: tuple[int, ...], *, channels: int, classes: int, width: int) -> None:
        super().__init__()
        widths = [width, *(width * 2**stage for stage in range(len(blocks)))]
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        for stage, (depth, (before, after)) in enumerate(
            zip(blocks, pairwise(widths), strict=True), 1
        ):
            first = PreActBlock(before, after, stride=1 if stage == 1 else 2)
            rest = (PreActBlock(after, after, stride=1) for _ in range(depth - 1))
            setattr(self, f"layer{stage}", nn.Sequential(first, *rest))
        self.stages = len(blocks)
        self.bn = nn.BatchNorm2d(widths[-1])
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of normalized images."""
        out = self.conv1(x)
        for stage in range(1, self.stages + 1):
            out = getattr(self, f"layer{stage}")(out)
        return self.linear(F.relu(self.bn(out)).mean((2, 3)))  # type: ignore[no-any-return]
