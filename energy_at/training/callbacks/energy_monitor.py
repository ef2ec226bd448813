"""Energies of every optimizer step, without a synchronisation per step."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from energy_at.core.rules import integer, require
from energy_at.energy.metrics import pair_metrics
from energy_at.training.module import AdversarialTraining

Row = dict[str, float]
Reader = Callable[[Trainer, Sequence[Row]], None]


class EnergyMonitor(Callback):
    """Logs energies, delta energies, AAE share, accuracies and losses of each step.

    Values stay on the device for ``every`` steps, or until an epoch ends or a checkpoint is
    written; then all their rows go to the loggers, each with its own step. Training is
    bit-identical with and without the monitor. Clean logits that the attack has not computed cost
    one forward pass a step.

    Args:
        every: Steps between two transfers to the host.

    Raises:
        ValueError: if ``every`` is out of its range.
    """

    def __init__(self, every: int = 50) -> None:
        require("every", every, integer(1))
        self.every = every
        self.latest: Row = {}
        self.readers: list[Reader] = []  # called with all rows, after the loggers
        self._names: list[str] = []
        self._values: list[Tensor] = []
        self._on_host: list[Row] = []
        self._lr = 0.0
        self._images = 0
        self._since = time.monotonic()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Requests clean logits of every step."""
        if isinstance(pl_module, AdversarialTraining):
            pl_module.observes_clean = True

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Reads the learning rate before the schedule is stepped."""
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measures the step's pair on its device."""
        if not isinstance(outputs, Mapping) or "pair" not in outputs:
            raise TypeError(f"EnergyMonitor needs steps that return a pair, got {type(outputs)}")
        pair = outputs["pair"]
        measured = {f"train/{name}": value for name, value in pair_metrics(pair).items()}
        measured |= {f"train/loss/{name}": part for name, part in outputs["parts"].items()}
        measured["train/loss"] = outputs["loss"].detach()
        if self._values and self._names != list(measured):
            self.flush(trainer)  # the objective has changed
        self._names = list(measured)
        self._values.append(torch.stack([value.float() for value in measured.values()]))
        self._on_host.append(
            {"step": trainer.global_step, "epoch": trainer.current_epoch, "lr": self._lr}
        )
        self._images += len(pair.y)
        if len(self._values) >= self.every:
            self.flush(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.flush(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the training rows before the rows of the validation."""
        self.flush(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Excludes the time of the validation from the rate."""
        self._since = time.monotonic()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Logs the steps before a failure."""
        self.flush(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Logs the last steps before ``Continuation`` counts the rows."""
        self.flush(trainer)

    def flush(self, trainer: Trainer) -> None:
        """Moves all rows from the device to the loggers and the readers."""
        if not self._values:
            return
        table = torch.stack(self._values).cpu().tolist()  # the one synchronisation
        now = time.monotonic()
        rate = self._images / max(now - self._since, 1e-9)
        rows = [
            host | dict(zip(self._names, values, strict=True))
            for host, values in zip(self._on_host, table, strict=True)
        ]
        rows[-1]["perf/images_per_s"] = rate
        self._values, self._on_host, self._images, self._since = [], [], 0, now
        self.latest = rows[-1]
        for logger in trainer.loggers:
            for row in rows:
                logger.log_metrics(dict(row), step=int(row["step"]))
            logger.save()
        for reader in self.readers:
            reader(trainer, rows)
