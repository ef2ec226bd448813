"""Normalization as the network's first layer, so that everything else sees pixels in [0, 1]."""

from collections.abc import Sequence

import torch
from torch import nn

from energy_at.core.types import Images, Logits


class Normalize(nn.Module):
    """``(x - mean) / std`` for each channel."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"need one mean and one std > 0 a channel, got {mean=}, {std=}")
        self.register_buffer("mean", torch.tensor(list(mean)).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).view(1, -1, 1, 1))

    def forward(self, x: Images) -> Images:
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
        return logits.to(x.dtype)
