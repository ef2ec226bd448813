"""The progress bar: loss, accuracies, dE(x), rate and time left."""

import time

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from energy_at.reporting.panels import ATTACKED, CLEAN, DELTA_X, LOSS, RATE
from energy_at.training.callbacks import callbacks_of
from energy_at.training.callbacks.energy_monitor import EnergyMonitor


class RunProgress(TQDMProgressBar):
    """Loss, clean and adversarial accuracy, dE(x), images per second, time left of the whole run.

    It shows the last row of the energy monitor, so that drawing needs no synchronisation.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        super().on_train_start(trainer, pl_module)
        self._clock = (time.monotonic(), trainer.global_step)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Ends the line of the bar before an error is printed."""
        for bar in (self._val_progress_bar, self._train_progress_bar):
            if bar is not None:
                bar.close()

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Numbers after the bar."""
        row = next((monitor.latest for monitor in callbacks_of(trainer, EnergyMonitor)), {})
        values: dict[str, int | str | float | dict[str, float]] = {
            metric.short: f"{row[metric.key]:{metric.form}}"
            for metric in (LOSS, CLEAN, ATTACKED, DELTA_X, RATE)
            if metric.key in row
        }
        return values | {"left": self._left(trainer)}

    def _left(self, trainer: Trainer) -> str:
        start, first = self._clock if hasattr(self, "_clock") else (0.0, 0)
        done, total = trainer.global_step - first, trainer.estimated_stepping_batches
        if done < 1 or total == float("inf"):
            return "?"
        seconds = int((time.monotonic() - start) / done * (total - trainer.global_step))
        return f"{seconds // 60}:{seconds % 60:02d}"
