"""Cost of a training step, independent of the machine."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from energy_at.core.types import Images, Labels
from energy_at.models.modes import eval_mode
from energy_at.training.module import AdversarialTraining


def forward_equivalents(module: AdversarialTraining, x: Images, y: Labels) -> float:
    """Cost of one optimizer step on a batch, in forward passes of the batch.

    Measured in floating point operations: a backward pass for weights and inputs is about 2. The
    module is modified.
    """
    with FlopCounterMode(display=False) as step:
        module.training_step((x, y), 0)["loss"].backward()
        module.on_after_backward()
    with FlopCounterMode(display=False) as forward, torch.no_grad(), eval_mode(module.net):
        module.net(x)
    return float(step.get_total_flops() / forward.get_total_flops())
