"""Networks for small images: ResNet-18, PreActResNet-18, Wide ResNet and a small CNN.

The ResNets (He et al., 2016) have a 3x3 stem without pooling. ``ResNet`` is as TRADES, AWP and
RobustBench write it; ``PreActResNet``, the network of fast AT, as in Rice et al. (2020), with batch
norm before the classifier. ``WideResNet`` (Zagoruyko & Komodakis, 2016) is as in TRADES (Zhang et
al., 2019). Layers are named as there, so that checkpoints fit; ``shortcut="plain"`` and
``final_norm=False`` make the network that RobustBench has of Wong et al. (2020),
``shortcut="plain3x3"`` and ``padding="same"`` the one of Gowal et al. (2020).
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from energy_at.core.ranges import require_ranges
from energy_at.models.layers import activation_function, conv1x1, conv3x3


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
            self.shortcut.extend([conv1x1(channels_in, channels, stride), nn.BatchNorm2d(channels)])

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(self.conv1(x)))
        return self.activation(self.bn2(self.conv2(out)) + self.shortcut(x))


class PreActBlock(nn.Module):
    """BN, activation, conv, BN, activation, conv, plus the shortcut.

    The shortcut is a convolution where the size changes: 1x1 from the first activation, 1x1 from
    the block's input (``plain``), or 3x3 from the block's input (``plain3x3``). ``wide`` is the
    first of these under the name that it has in Wide ResNets.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        stride: int,
        *,
        activation: str,
        shortcut: str,
        padding: str,
    ) -> None:
        super().__init__()
        self.activation = activation_function(activation)
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = conv3x3(channels_in, channels, stride, padding)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.shortcut_activated = shortcut in ("activated", "wide")
        self.shortcut_name = "convShortcut" if shortcut == "wide" else "shortcut"
        if stride != 1 or channels_in != channels:
            sizes = (channels_in, channels, stride)
            conv = conv3x3(*sizes, padding) if shortcut == "plain3x3" else conv1x1(*sizes)
            self.add_module(self.shortcut_name, conv if shortcut == "wide" else nn.Sequential(conv))

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activation(self.bn1(x))
        shortcut = x
        if hasattr(self, self.shortcut_name):
            convolve = getattr(self, self.shortcut_name)
            shortcut = convolve(activated if self.shortcut_activated else x)
        out: Tensor = self.conv2(self.activation(self.bn2(self.conv1(activated))))
        return out + shortcut


class _StagedResNet(nn.Module):
    """A 3x3 stem, stages ``layer1``, ``layer2``, ... of blocks, and a linear classifier.

    Each stage has half the size and twice the channels of the last.

    Args:
        blocks: Of each stage.
        make_block: A block of channels in, channels out, and stride.
        stem_norm: Whether batch norm follows the stem.
        final_norm: Whether batch norm comes before the classifier.
    """

    def __init__(
        self,
        blocks: tuple[int, ...],
        make_block: Callable[[int, int, int], nn.Module],
        activation: str,
        *,
        channels: int,
        classes: int,
        width: int,
        stem_norm: bool,
        final_norm: bool,
    ) -> None:
        super().__init__()
        require_ranges("models.sizes", channels=channels, classes=classes, width=width)
        self.activation = activation_function(activation)
        self.conv1 = conv3x3(channels, width)
        self.bn1 = nn.BatchNorm2d(width) if stem_norm else None
        widths: list[int] = [width, *(width * 2**stage for stage in range(len(blocks)))]
        self.stages = [f"layer{stage}" for stage in range(1, len(widths))]
        for name, depth, (before, after) in zip(self.stages, blocks, pairwise(widths), strict=True):
            first = make_block(before, after, 1 if name == "layer1" else 2)
            rest = (make_block(after, after, 1) for _ in range(depth - 1))
            self.add_module(name, nn.Sequential(first, *rest))
        self.bn = nn.BatchNorm2d(widths[-1]) if final_norm else None
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(x)
        if self.bn1 is not None:
            out = self.activation(self.bn1(out))
        for name in self.stages:
            out = getattr(self, name)(out)
        if self.bn is not None:
            out = self.activation(self.bn(out))
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


class ResNet(_StagedResNet):
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
        block = partial(BasicBlock, activation=activation)
        sizes = {"channels": channels, "classes": classes, "width": width}
        super().__init__(blocks, block, activation, stem_norm=True, final_norm=False, **sizes)


class PreActResNet(_StagedResNet):
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
        require_ranges("models.PreActResNet", shortcut=shortcut, final_norm=final_norm)
        block = partial(PreActBlock, activation=activation, shortcut=shortcut, padding=padding)
        sizes = {"channels": channels, "classes": classes, "width": width}
        super().__init__(blocks, block, activation, stem_norm=False, final_norm=final_norm, **sizes)


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
        require_ranges("models.sizes", channels=channels, classes=classes, width=width)
        require_ranges("models.WideResNet", widen=widen, depth=depth)
        wide = width * widen
        block = partial(PreActBlock, activation=activation, shortcut="wide", padding=padding)

        def stage(channels_in: int, channels: int, stride: int) -> nn.Sequential:
            first = block(channels_in, channels, stride)
            rest = (block(channels, channels, 1) for _ in range((depth - 4) // 6 - 1))
            return nn.Sequential(OrderedDict(layer=nn.Sequential(first, *rest)))

        self.activation = activation_function(activation)
        self.conv1 = conv3x3(channels, width)
        self.block1 = stage(width, wide, 1)
        self.block2 = stage(wide, 2 * wide, 2)
        self.block3 = stage(2 * wide, 4 * wide, 2)
        self.bn1 = nn.BatchNorm2d(4 * wide)
        self.fc = nn.Linear(4 * wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        logits: Tensor = self.fc(self.activation(self.bn1(out)).mean((2, 3)))
        return logits


class SmallCNN(nn.Module):
    """Two pairs of 3x3 convolutions with max pooling, then two linear layers; no batch norm.

    Takes images of 8 pixels and more: the last feature map is averaged to 2x2.
    """

    def __init__(self, *, channels: int, classes: int, width: int = 32) -> None:
        super().__init__()
        require_ranges("models.sizes", channels=channels, classes=classes, width=width)
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(8 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits
