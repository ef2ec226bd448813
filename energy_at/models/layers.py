"""Layers that the networks share: normalization of pixels, activations, convolutions."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from energy_at.core.ranges import require_ranges
from energy_at.core.rules import ArgumentError
from energy_at.core.types import Images, Logits
from energy_at.models.modes import require_tensor


def activation_function(name: str) -> Callable[[Tensor], Tensor]:
    """ReLU, or SiLU, which the literature also calls Swish."""
    require_ranges("models.activation_function", activation=name)
    return F.relu if name == "relu" else F.silu


def conv3x3(
    channels_in: int, channels: int, stride: int = 1, padding: str = "symmetric"
) -> nn.Conv2d:
    """A 3x3 convolution without bias that keeps the size, or halves it with ``stride=2``.

    ``padding="same"`` pads a stride of 2 as TensorFlow does: right and bottom only (the networks of
    Gowal et al., 2020, and their successors).
    """
    require_ranges("models.conv3x3", padding=padding)
    if padding == "same" and stride == 2:
        return _RightBottomConv(channels_in, channels, 3, stride, bias=False)
    return nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)


def conv1x1(channels_in: int, channels: int, stride: int) -> nn.Conv2d:
    """A 1x1 convolution without bias of every ``stride``-th pixel."""
    # oneDNN 3.13 (AVX2, NHWC) writes past its buffer for strided weights of few channels
    kind = _SubsampledConv if channels_in < 8 else nn.Conv2d
    return kind(channels_in, channels, 1, stride, bias=False)


def make_convolutions_safe(net: nn.Module) -> None:
    """Has strided 1x1 convolutions of few channels computed as ``conv1x1`` does, in place."""
    for conv in net.modules():
        if (
            type(conv) is nn.Conv2d
            and (conv.kernel_size, conv.padding, conv.groups) == ((1, 1), (0, 0), 1)
            and conv.in_channels < 8
        ):
            conv.__class__ = _SubsampledConv


class _SubsampledConv(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input[..., :: self.stride[0], :: self.stride[1]], self.weight, self.bias)


class _RightBottomConv(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (0, 1, 0, 1)))


class Normalize(nn.Module):
    """``(x - mean) / std`` for each channel; three means make three channels of a grey image."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        require_ranges("models.Normalize", mean=mean, std=std)
        if len(std) != len(mean):
            must = f"a list of {len(mean)} finite numbers > 0, one a channel as mean"
            raise ArgumentError("std", std, must)
        self.register_buffer("mean", torch.tensor(list(mean)).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).view(1, -1, 1, 1))

    def forward(self, x: Images) -> Float[Tensor, "batch normalized height width"]:
        return (x - self.mean) / self.std


class Normalized(nn.Module):
    """A classifier of images in [0, 1]: normalization, then a network.

    Logits come back in the precision of the images, so that under bf16 autocast energies and
    losses are still computed in fp32.
    """

    def __init__(self, normalize: Normalize, net: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize
        self.net = net

    def forward(self, x: Images) -> Logits:
        logits: Logits = self.net(self.normalize(x))
        require_tensor(logits)
        return logits.to(x.dtype)
