"""Weight averaging that cannot hide catastrophic overfitting."""

from collections.abc import Mapping
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn

from energy_at.training.module import AdversarialTraining


class EMA(EMAWeightAveraging):
    """Lightning's exponential moving average, validated beside the live weights.

    Lightning validates the average instead of the live network, whose collapse would then show
    late or never. Here ``val/...`` stays the live network and ``val_ema/...`` is the average.
    Checkpoints hold the average under ``state_dict``, as Lightning's callback writes them.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Makes the average, and has it validated too."""
        # Lightning moves the network to its device only after this.
        self._device = self._device or trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and isinstance(pl_module, AdversarialTraining):
            pl_module.validated_nets["val_ema"] = self._net

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The live network stays in place."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing was exchanged."""

    def averaged(self) -> dict[str, Any]:
        """The average, as tensors that training goes on changing."""
        assert self._average_model is not None
        return self._average_model.state_dict()

    def restore(self, averaged: Mapping[str, Any]) -> None:
        """Goes on with an earlier average."""
        assert self._average_model is not None
        self._average_model.load_state_dict(averaged)

    def _net(self) -> nn.Module:
        assert self._average_model is not None
        averaged = self._average_model.module
        assert isinstance(averaged, AdversarialTraining)
        return averaged.net
