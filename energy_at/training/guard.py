"""Stops a training whose images, losses or weights are not what they must be."""

import math
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from energy_at.attacks.base import require_bounded
from energy_at.core.interrupt import stop_if_interrupted
from energy_at.core.ranges import require_ranges
from energy_at.core.types import require_labels, require_pixels


class StepBuffer(Callback):
    """Keeps values of steps on their device, and reads them with one synchronisation.

    They are read every ``every`` steps, at the end of an epoch, and before each validation and
    checkpoint.
    """

    def __init__(self, every: int = 50) -> None:
        require_ranges("training.StepBuffer", every=every)
        self.every = every

    def flush(self, trainer: Trainer) -> None:
        """Reads all values that are kept."""

    def on_train_epoch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.flush(trainer)

    on_validation_start = on_save_checkpoint = on_train_epoch_end


class FiniteGuard(StepBuffer):
    """Raises on a loss or a weight that is not finite, or on images that are not in [0, 1].

    Labels must be those of classes, and adversarial images lie in the ball of their attack, too.
    No checkpoint of a broken network is written.

    Args:
        every: Steps (>= 1) between two checks on an accelerator; on a CPU, where no value is waited
            for, every step is checked. Each validation and checkpoint is preceded by a check.
    """

    def __init__(self, every: int = 50) -> None:
        super().__init__(every)
        self._losses: list[Tensor] = []
        self._extremes: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        stop_if_interrupted()
        self._losses.append(outputs["loss"].detach())
        if "extremes" in outputs:
            self._extremes.append(outputs["extremes"])
        if len(self._losses) >= self.every or self._losses[-1].device.type == "cpu":
            self.flush(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Raises rather than save a broken network."""
        self.flush(trainer)
        _require_finite(pl_module, trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _require_finite(pl_module, trainer)

    def flush(self, trainer: Trainer) -> None:
        losses, self._losses = self._losses, []
        extremes, self._extremes = self._extremes, []
        if not losses:
            return
        first = trainer.global_step - len(losses) + 1
        read = torch.stack(extremes).tolist() if extremes else [()] * len(losses)
        both = zip(torch.stack(losses).tolist(), read, strict=True)
        for step, (loss, seen) in enumerate(both, first):
            place = f" at step {step}"
            if seen:
                low, high, label, last, classes, *attacked = seen
                require_pixels(low, high, "training", place)
                require_labels(int(label), int(last), int(classes), place)
            if not math.isfinite(loss):  # before x*, which a network of NaN makes NaN too
                raise _broken(f"the loss is {loss}", step, trainer)
            if seen:
                require_bounded(*attacked, place=place)


def _require_finite(module: LightningModule, trainer: Trainer) -> None:
    finite = torch.stack([weight.detach().isfinite().all() for weight in module.parameters()])
    if not finite.all():
        raise _broken("a weight is not finite", trainer.global_step, trainer)


def _broken(what: str, step: int, trainer: Trainer) -> FloatingPointError:
    saved = [one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)]
    folders = [Path(one.dirpath) for one in saved if one.dirpath]
    kept = any(file for folder in folders for file in folder.glob("*.ckpt"))
    which = "checkpoints written before are kept" if kept else "no checkpoint had been written"
    return FloatingPointError(
        f"{what} at step {step}: training stopped, {which}; "
        "lower the learning rate, or the weights of the loss and its regularizers"
    )
