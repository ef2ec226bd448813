"""SGD, AdamW, adversarial weight perturbation, and schedules stepped after every batch.

A schedule is a factory ``(optimizer, total_steps) -> LRScheduler``; the learning rate of the
optimizer is its peak. Numbers out of range raise a ``ValueError``.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch.utilities.types import LRSchedulerConfigType
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from energy_at.attacks.threat import unit
from energy_at.core.distributed import summed
from energy_at.core.ranges import require_ranges
from energy_at.core.rules import ArgumentError, Rule, an, integer, require
from energy_at.core.types import Scalar

T = TypeVar("T")
OptimizerFactory = Callable[[nn.Module], Optimizer]
ScheduleFactory = Callable[[Optimizer, int], LRScheduler]  # given the number of all steps

A_NETWORK = an(nn.Module, "a network, a torch.nn.Module")
AN_OPTIMIZER_FACTORY = Rule(
    "a function of the network that returns an optimizer, such as partial(sgd, lr=0.1)",
    lambda value: (
        callable(value) and not (isinstance(value, type) and issubclass(value, Optimizer))
    ),
)
_AN_OPTIMIZER = an(Optimizer, "an optimizer, such as sgd(net)")


def sgd(
    net: nn.Module,
    *,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    nesterov: bool = False,
    decay_norm: bool = True,
) -> SGD:
    """SGD with momentum; a schedule scales the peak learning rate ``lr``.

    Weight decay applies to scales and shifts of batch norm too, as in the published recipes, unless
    ``decay_norm`` is ``False``.
    """
    require(A_NETWORK, net=net)
    require_ranges(
        "training.sgd",
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=nesterov,
        decay_norm=decay_norm,
    )
    norms = {p for m in net.modules() if isinstance(m, _BatchNorm) for p in m.parameters()}
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


def adamw(
    net: nn.Module,
    *,
    lr: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    weight_decay: float = 0.05,
    decay_vectors: bool = False,
) -> AdamW:
    """AdamW (Loshchilov & Hutter, 2019); a schedule scales the peak learning rate ``lr``.

    Biases, and scales and shifts of normalization, have no weight decay unless ``decay_vectors``.
    """
    require(A_NETWORK, net=net)
    require_ranges(
        "training.adamw",
        lr=lr,
        beta1=beta1,
        beta2=beta2,
        weight_decay=weight_decay,
        decay_vectors=decay_vectors,
    )
    free = [p for p in net.parameters() if p.ndim <= 1 and not decay_vectors]
    rest = [p for p in net.parameters() if p.ndim > 1 or decay_vectors]
    groups: list[dict[str, Any]] = [{"params": rest}, {"params": free, "weight_decay": 0.0}]
    return AdamW(
        [group for group in groups if group["params"]],
        lr=lr,
        betas=(float(beta1), float(beta2)),
        weight_decay=weight_decay,
    )


class WeightPerturbation:
    """Adversarial weight perturbation, AWP (Wu, Xia & Wang, NeurIPS 2020).

    ``w_l <- w_l + gamma ||w_l|| / ||g_l|| g_l`` along the gradient of the loss for every layer, one
    step (eq. 10). Vectors, such as biases and the scales of batch norm, are not perturbed, as in
    the published code. That code removes the perturbation after the optimizer's step; here the
    weights are restored before it, exactly.

    Args:
        gamma: Size of the perturbation relative to the weights.
        warmup_epochs: Epochs without it.
    """

    def __init__(self, gamma: float, warmup_epochs: float = 0.0) -> None:
        require_ranges("training.WeightPerturbation", gamma=gamma, warmup_epochs=warmup_epochs)
        self.gamma = gamma
        self.warmup_epochs = warmup_epochs
        self._kept: list[tuple[Tensor, Tensor]] = []

    def ascend(self, net: nn.Module, loss: Scalar) -> None:
        """Perturbs the weights along the gradient of ``loss``, summed over all processes."""
        weights = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
        grads = torch.autograd.grad(loss, weights, allow_unused=True)
        self.restore()
        with torch.no_grad():
            for weight, grad in zip(weights, grads, strict=True):
                if grad is not None:
                    self._kept.append((weight, weight.clone()))
                    norm = torch.linalg.vector_norm(weight)
                    weight.add_(self.gamma * norm * unit(summed(grad)))
        torch.clear_autocast_cache()  # it may hold low-precision copies of the old weights

    def restore(self) -> None:
        kept, self._kept = self._kept, []
        with torch.no_grad():
            for weight, value in kept:
                weight.copy_(value)


def optimizer_of(factory: OptimizerFactory, net: nn.Module) -> Optimizer:
    """The optimizer of a network.

    Raises:
        ValueError: if no weight of the network can change, or the factory returns something else.
    """
    if not any(weight.requires_grad for weight in net.parameters()):
        raise ValueError(
            "the network has nothing to train: no weight of it requires a gradient; "
            "net.requires_grad_() makes all of them trainable"
        )
    return _made("optimizer", AN_OPTIMIZER_FACTORY.must, Optimizer, factory, net)


def stepped(
    schedule: ScheduleFactory, optimizer: Optimizer, total_steps: float
) -> LRSchedulerConfigType:
    """A schedule of ``total_steps`` steps, as Lightning takes it.

    Raises:
        ValueError: if the number of steps is infinite, or the factory returns something else.
    """
    if not 0 < total_steps < float("inf"):
        raise ValueError(
            "a learning-rate schedule needs a number of steps: max_steps, or max_epochs and a "
            "loader of some length"
        )
    must = "a function of the optimizer and the number of steps that returns an LRScheduler"
    scheduler = _made("schedule", must, LRScheduler, schedule, optimizer, int(total_steps))
    return {"scheduler": scheduler, "interval": "step"}


def _made(what: str, must: str, kind: type[T], factory: Callable[..., T], *arguments: Any) -> T:
    """What a factory makes, which may be a user's own."""
    try:
        made = factory(*arguments)
    except ArgumentError:
        raise
    except TypeError as error:  # such as of torch.optim.SGD, which takes weights and no network
        raise ValueError(f"{what} must be {must}: {error}") from error
    except ValueError as error:  # of torch
        raise ValueError(f"{what}: {error}") from error
    if not isinstance(made, kind):
        raise ArgumentError(what, factory, must)
    return made


def _require_steps(optimizer: Optimizer, total_steps: int) -> None:
    require(_AN_OPTIMIZER, optimizer=optimizer)
    require(integer(1), total_steps=total_steps)


def triangular(optimizer: Optimizer, total_steps: int, *, peak: float = 0.5) -> LRScheduler:
    """Linear from 0 to the peak at the share ``peak`` of all steps and to 0 (Wong et al., 2020)."""
    _require_steps(optimizer, total_steps)
    require_ranges("training.triangular", peak=peak)
    knots = [0.0, peak * total_steps, float(total_steps)]
    return LambdaLR(optimizer, lambda step: float(np.interp(step, knots, [0.0, 1.0, 0.0])))


def piecewise(
    optimizer: Optimizer,
    total_steps: int,
    *,
    milestones: Sequence[float] = (0.5, 0.75),
    factor: float = 0.1,
) -> LRScheduler:
    """Times ``factor`` at each milestone, a share of all steps (Rice et al., 2020)."""
    _require_steps(optimizer, total_steps)
    require_ranges("training.piecewise", milestones=milestones, factor=factor)
    drops = [round(share * total_steps) for share in milestones]
    return LambdaLR(optimizer, lambda step: factor ** sum(step >= drop for drop in drops))


def onecycle(
    optimizer: Optimizer,
    total_steps: int,
    *,
    pct_start: float = 0.25,
    cycle_momentum: bool = False,
) -> LRScheduler:
    """PyTorch's OneCycleLR: cosine up over the share ``pct_start`` of all steps, cosine down.

    Raises:
        ValueError: if there are too few steps.
    """
    _require_steps(optimizer, total_steps)
    require_ranges("training.onecycle", pct_start=pct_start, cycle_momentum=cycle_momentum)
    if pct_start * total_steps <= 1:
        raise ValueError(f"onecycle cannot rise and fall in {total_steps} steps: train for longer")
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(
        optimizer,
        max_lr=peaks,
        total_steps=total_steps,
        pct_start=pct_start,
        cycle_momentum=cycle_momentum,
    )


def cosine(
    optimizer: Optimizer, total_steps: int, *, warmup: float = 0.1, floor: float = 0.0
) -> LRScheduler:
    """Linear from 0 to the peak over the share ``warmup`` of all steps, then half a cosine.

    It ends at the share ``floor`` of the peak (Loshchilov & Hutter, 2017).
    """
    _require_steps(optimizer, total_steps)
    require_ranges("training.cosine", warmup=warmup, floor=floor)
    rise = warmup * total_steps

    def factor(step: int) -> float:
        if step < rise:
            return step / rise
        done = min((step - rise) / (total_steps - rise), 1.0)
        return floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2

    return LambdaLR(optimizer, factor)


def constant(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """The learning rate of the optimizer at every step."""
    _require_steps(optimizer, total_steps)
    return LambdaLR(optimizer, lambda _: 1.0)
