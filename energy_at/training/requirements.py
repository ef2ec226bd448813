"""What a batch must be to be trained, or measured, on."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def require_batches(net: nn.Module, images: int, batch_size: int) -> None:
    """Refuses an epoch that leaves a batch of one image to batch norm.

    Raises:
        ValueError: if it does.
    """
    require_batch(net, min(images % batch_size or batch_size, images))


def require_batch(net: nn.Module, size: int) -> None:
    """Refuses a batch of one image to batch norm.

    Raises:
        ValueError: if it is one.
    """
    if size == 1 and any(isinstance(module, _BatchNorm) for module in net.modules()):
        raise ValueError(
            "a training batch of one image cannot pass batch norm: choose a dataset.batch_size "
            "that leaves at least two images in the last batch"
        )


def require_pixels(low: float, high: float, stage: str) -> None:
    """Refuses images whose pixels do not lie in [0, 1].

    Raises:
        ValueError: if the lowest or the highest does not.
    """
    if not (low >= 0 and high <= 1):
        cure = (
            "divide bytes by 255"
            if low >= 0 and high > 2
            else "normalization is the network's first layer, not the data's"
        )
        raise ValueError(f"{stage} images must lie in [0, 1], got [{low:g}, {high:g}]: {cure}")
