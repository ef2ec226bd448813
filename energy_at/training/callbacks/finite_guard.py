"""Stops a training that has become numerically broken, before it overwrites its checkpoints."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from energy_at.core.rules import integer, require
from energy_at.training.module import require_pixels


class FiniteGuard(Callback):
    """Raises on a loss or a weight that is not finite, or on images outside [0, 1].

    No checkpoint of a broken network is written. Steps are checked together: every ``every`` of
    them, and before each validation and checkpoint.

    Args:
        every: Steps between two checks.

    Raises:
        ValueError: if ``every`` is out of its range.
    """

    def __init__(self, every: int = 50) -> None:
        require("every", every, integer(1))
        self.every = every
        self._losses: list[Tensor] = []
        self._pixels: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the loss of the step, on its device."""
        self._losses.append((outputs["loss"] if isinstance(outputs, Mapping) else outputs).detach())
        if isinstance(outputs, Mapping) and "pixels" in outputs:
            self._pixels.append(outputs["pixels"])
        if len(self._losses) >= self.every:
            self._check_steps(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_steps(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_steps(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Raises rather than save a broken network."""
        self._check_steps(trainer)
        finite = torch.stack([p.detach().isfinite().all() for p in pl_module.parameters()])
        if not finite.all():
            raise FloatingPointError(_message("a weight is not finite", trainer.global_step))

    def _check_steps(self, trainer: Trainer) -> None:
        losses, self._losses = self._losses, []
        if not losses:
            return
        pixels, self._pixels = self._pixels, []
        if pixels:
            extremes = torch.stack(pixels)
            require_pixels(float(extremes[:, 0].min()), float(extremes[:, 1].max()), "training")
        bad = (~torch.stack(losses).isfinite()).nonzero()
        if len(bad):
            index = int(bad[0])
            step = trainer.global_step - len(losses) + index + 1
            raise FloatingPointError(_message(f"the loss is {losses[index].item()}", step))


def _message(what: str, step: int) -> str:
    return (
        f"{what} at step {step}: training stopped, checkpoints written before are kept; "
        "lower optimizer.lr, or the weights of the loss and its regularizers"
    )
