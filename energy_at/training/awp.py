"""Adversarial weight perturbation, AWP (Wu, Xia & Wang, NeurIPS 2020)."""

import torch
from torch import Tensor, nn

from energy_at.attacks.threat import scale_to_largest
from energy_at.core.distributed import summed
from energy_at.core.rules import POSITIVE, number, require
from energy_at.core.types import Scalar


class WeightPerturbation:
    """Perturbs the weights along the gradient of the loss, and restores them before the update.

    ``w_l <- w_l + gamma ||w_l|| / ||g_l|| g_l`` for every layer, one step (eq. 10). Vectors, such
    as biases and the scales of batch norm, are not perturbed, as in the published code. That code
    removes the perturbation after the optimizer's step; here the weights are restored before it,
    exactly.

    Args:
        gamma: Size of the perturbation relative to the weights.
        warmup_epochs: Epochs without it.

    Raises:
        ValueError: if a value is out of its range.
    """

    def __init__(self, gamma: float, warmup_epochs: float = 0.0) -> None:
        require("gamma", gamma, POSITIVE)
        require("warmup_epochs", warmup_epochs, number(0))
        self.gamma = gamma
        self.warmup_epochs = warmup_epochs
        self._kept: list[tuple[Tensor, Tensor]] = []

    def ascend(self, net: nn.Module, loss: Scalar) -> None:
        """Perturbs the weights of ``net`` along the gradient of ``loss``.

        Where several processes share a batch, along the sum of their gradients.
        """
        weights = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
        grads = torch.autograd.grad(loss, weights, allow_unused=True)
        self.restore()
        with torch.no_grad():
            for weight, grad in zip(weights, grads, strict=True):
                if grad is not None:
                    self._kept.append((weight, weight.clone()))
                    norm = torch.linalg.vector_norm(weight)
                    weight.add_(self.gamma * norm * _unit(summed(grad)))
        torch.clear_autocast_cache()  # it may hold low-precision copies of the old weights

    def restore(self) -> None:
        """Restores the weights, bit for bit."""
        kept, self._kept = self._kept, []
        with torch.no_grad():
            for weight, value in kept:
                weight.copy_(value)


def _unit(grad: Tensor) -> Tensor:
    scaled = scale_to_largest(grad)
    norm: Tensor = torch.linalg.vector_norm(scaled)
    return scaled / norm.clamp_min(torch.finfo(grad.dtype).tiny)
