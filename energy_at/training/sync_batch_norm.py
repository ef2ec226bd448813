"""Batch norm over the images of all processes, on any device, differentiable twice."""

from typing import Any

import torch
from lightning.pytorch.plugins import LayerSync
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from energy_at.core.distributed import summed


class SharedBatchNorm(LayerSync):
    """Gives batch norm the statistics of the whole batch when several processes train on it.

    PyTorch's ``SyncBatchNorm`` does not support the CPU, and its backward pass cannot be
    differentiated, which GradAlign requires.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Exchanges the classes of the layers, but not their parameters, statistics or names."""
        return _exchange(model, _SHARED)

    def revert(self, model: nn.Module) -> nn.Module:
        """Restores the classes."""
        return _exchange(model, {shared: plain for plain, shared in _SHARED.items()})


class _Shared(_BatchNorm):
    """Batch norm with the statistics of all processes in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)  # type: ignore[no-untyped-call]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # energies need it under autocast
        mean, var, count = _moments(wide)
        if self.track_running_stats:
            self._follow(mean.detach(), var.detach() * count / (count - 1))
        shape = [1, -1] + [1] * (x.ndim - 2)
        scale = (var + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        return (wide * scale.view(shape) + shift.view(shape)).to(x.dtype)

    def _follow(self, mean: Tensor, var: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        steps = self.num_batches_tracked
        momentum = 1 / float(steps) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var, momentum)


_SHARED: dict[Any, Any] = {
    plain: type(f"Shared{plain.__name__}", (_Shared, plain), {})
    for plain in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
}


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each channel over all processes, and the count of their values.

    Two exchanges, mean first: the mean of squares minus the squared mean would cancel.
    """
    dims = [0, *range(2, x.ndim)]
    var, mean = torch.var_mean(x, dims, correction=0)
    own = x.new_tensor(x.numel() / x.shape[1])
    sums = summed(torch.cat([own * mean, own[None]]))
    total = sums[-1].detach()
    mean_of_all = sums[:-1] / total
    squares = summed(own * (var + (mean - mean_of_all).square()))
    return mean_of_all, squares / total, total


def _exchange(model: nn.Module, kinds: dict[Any, Any]) -> nn.Module:
    for module in model.modules():
        module.__class__ = kinds.get(type(module), type(module))
    return model
