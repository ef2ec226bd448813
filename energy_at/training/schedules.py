"""Learning-rate schedules, stepped after every batch.

Each is a factory ``(optimizer, total_steps) -> LRScheduler``; the optimizer's own
learning rate is the peak.
"""

from collections.abc import Sequence

import numpy as np
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR


def triangular(optimizer: Optimizer, total_steps: int, *, peak: float = 0.5) -> LRScheduler:
    """Linear from 0 to the top at the share ``peak`` of all steps, and back (Wong et al., 2020)."""
    _require_share("schedule.peak", peak)
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
    for share in milestones:
        _require_share("schedule.milestones", share)
    drops = [round(share * total_steps) for share in milestones]
    return LambdaLR(optimizer, lambda step: factor ** sum(step >= drop for drop in drops))


def onecycle(
    optimizer: Optimizer,
    total_steps: int,
    *,
    pct_start: float = 0.25,
    cycle_momentum: bool = False,
) -> LRScheduler:
    """PyTorch's OneCycleLR: cosine up over the share ``pct_start`` of all steps, cosine down."""
    _require_share("schedule.pct_start", pct_start)
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


def constant(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """The same learning rate throughout."""
    return LambdaLR(optimizer, lambda _: 1.0)


def _require_share(name: str, share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"{name} is a share of the training, 0 < share < 1; got {share:g}")
