"""A network whose logits do not depend on the other images of the batch, bit for bit."""

import torch
from torch import nn

from energy_at.core.types import Images, Logits


def tile_of(device: torch.device) -> int:
    """Images of a tile on this device."""
    return 16 if device.type == "cpu" else 128


class Tiled(nn.Module):
    """A network in evaluation mode that sees ``size`` images at a time, the last ones padded.

    The kernels of a matrix product, and with them the last bits of an image's logits and gradient,
    depend on the size of the batch; seen in tiles of one size they do not. A network that cuts its
    logits off from its input has a gradient of zero instead of none.
    """

    def __init__(self, net: nn.Module, size: int) -> None:
        super().__init__()
        self.net = net
        self.size = size

    def forward(self, x: Images) -> Logits:
        padding = -len(x) % self.size
        if padding:
            last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
            x = torch.cat([x, torch.zeros_like(x[:1]).expand(padding, -1, -1, -1)])
            # Kernels, and the last bits with them, depend on the memory format too.
            kind = torch.channels_last if last else torch.contiguous_format
            x = x.contiguous(memory_format=kind)
        tiles: tuple[Images, ...] = torch.split(x, self.size)
        whole = torch.cat([self.net(tile) for tile in tiles])
        if x.requires_grad:
            whole = whole + 0 * x.flatten(1).sum(1, keepdim=True)
        return whole[: len(x) - padding]
