"""Exponential moving average of the weights that does not hide catastrophic overfitting."""

from collections.abc import Mapping
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn

from energy_at.training.module import AdversarialTraining


class EMA(EMAWeightAveraging):
    """Lightning's exponential moving average, validated alongside the live weights.

    Lightning validates the average instead of the live network, whose collapse would then show
    late or never. Here ``val/...`` is the live network and ``val_ema/...`` the average. Checkpoints
    hold the average as ``state_dict``, as those of Lightning's callback do.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Creates the average and adds it to the validation."""
        # Lightning moves the network to its device after this
        self._device = self._device or trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and isinstance(pl_module, AdversarialTraining):
            pl_module.validated_nets["val_ema"] = self._net

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the live network, which Lightning would exchange for the average."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Does nothing: nothing was exchanged."""

    def average_state(self) -> dict[str, Any]:
        """State of the average; training continues to change its tensors."""
        assert self._average_model is not None
        return self._average_model.state_dict()

    def restore(self, averaged: Mapping[str, Any]) -> None:
        """Restores an earlier state of the average."""
        assert self._average_model is not None
        self._average_model.load_state_dict(averaged)

    def _net(self) -> nn.Module:
        assert self._average_model is not None
        averaged = self._average_model.module
        assert isinstance(averaged, AdversarialTraining)
        return averaged.net
