"""What a step of training costs, whatever machine it runs on."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from energy_at.core.types import Images, Labels
from energy_at.models.modes import eval_mode
from energy_at.training.module import AdversarialTraining


def forward_equivalents(module: AdversarialTraining, x: Images, y: Labels) -> float:
    """Work of one optimizer step on a batch, in forward passes of the batch.

    Counted in floating point operations, so that a backward pass by weights and inputs is about 2.
    The step takes place: give it a module of its own.
    """
    with FlopCounterMode(display=False) as step:
        module.training_step((x, y), 0)["loss"].backward()
        module.on_after_backward()
    with FlopCounterMode(display=False) as forward, torch.no_grad(), eval_mode(module.net):
        module.net(x)
    return float(step.get_total_flops() / forward.get_total_flops())
