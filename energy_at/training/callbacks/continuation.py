"""What a checkpoint must know so that a resumed run leaves the log of an uninterrupted one."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from energy_at.training.loggers.csv import MetricsCSV


class Continuation(Callback):
    """Keeps the length of ``metrics.csv`` and the W&B run id in every checkpoint.

    On resume, rows that were written after the checkpoint are dropped: the run writes them again.
    """

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Notes both; comes after the callbacks that write the last rows."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV):
                checkpoint["metrics_rows"] = logger.count()
            elif isinstance(logger, WandbLogger) and logger.version is not None:
                checkpoint["wandb_id"] = str(logger.version)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Cuts the log back to the checkpoint; the process that writes it does."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV) and trainer.is_global_zero:
                logger.truncate(checkpoint["metrics_rows"])
