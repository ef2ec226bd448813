"""The optimizer of adversarial training."""

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD


def sgd(
    net: nn.Module,
    *,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    nesterov: bool = False,
    decay_norm: bool = True,
) -> SGD:
    """SGD with momentum.

    Args:
        net: The network.
        lr: Peak learning rate; a schedule scales it.
        momentum: Momentum.
        weight_decay: Weight decay.
        nesterov: Whether the momentum is Nesterov's.
        decay_norm: Whether weight decay acts on scales and shifts of batch norm too, as in the
            published recipes.

    Raises:
        ValueError: if a number is out of its range.
    """
    if not 0 < lr < float("inf"):
        raise ValueError(f"optimizer.lr must be positive, got {lr:g}")
    norms = {
        parameter
        for module in net.modules()
        if isinstance(module, _BatchNorm)
        for parameter in module.parameters()
    }
    free = [p for p in net.parameters() if p in norms and not decay_norm]
    rest = [p for p in net.parameters() if p not in norms or decay_norm]
    groups: list[dict[str, Any]] = [{"params": rest}, {"params": free, "weight_decay": 0.0}]
    return SGD(
        [group for group in groups if group["params"]],
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=nesterov,
    )
