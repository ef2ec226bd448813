"""What the residual networks share."""

from collections.abc import Callable
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["relu", "silu"]
Padding = Literal["symmetric", "same"]


def activation_function(name: str) -> Callable[[Tensor], Tensor]:
    """ReLU, or SiLU, which the literature also calls Swish."""
    if name not in get_args(Activation):
        raise ValueError(f"model.activation must be relu or silu, got {name!r}")
    return F.relu if name == "relu" else F.silu


def conv3x3(
    channels_in: int, channels: int, stride: int = 1, padding: str = "symmetric"
) -> nn.Conv2d:
    """A 3x3 convolution without bias that keeps the size, or halves it with ``stride=2``.

    Args:
        channels_in: Channels of the images that come in.
        channels: Channels that go out.
        stride: 1 or 2.
        padding: ``"symmetric"``, or ``"same"`` as TensorFlow pads a stride of 2: right and bottom
            only (the networks of Gowal et al., 2020, and their successors).
    """
    if padding not in get_args(Padding):
        raise ValueError(f"model.padding must be symmetric or same, got {padding!r}")
    if padding == "same" and stride == 2:
        return _RightBottomConv(channels_in, channels, 3, stride, bias=False)
    return nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)


class _RightBottomConv(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (0, 1, 0, 1)))
