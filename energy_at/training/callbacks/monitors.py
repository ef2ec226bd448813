"""What is read of every step: energies, finite values, the progress bar."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor

from energy_at.core.distributed import summed
from energy_at.core.rules import integer, require
from energy_at.energy.metrics import pair_metrics
from energy_at.objectives import pert_align
from energy_at.reporting.panels import ATTACKED, CLEAN, DELTA_X, LOSS, RATE
from energy_at.training.callbacks import callbacks_of
from energy_at.training.callbacks.networks import CompiledNet
from energy_at.training.module import AdversarialTraining, require_pixels

Row = dict[str, float]
Reader = Callable[[Trainer, Sequence[Row]], None]


class _Buffer(Callback):
    """Keeps values of steps on their device, and reads them with one synchronisation.

    They are read every ``every`` steps, at the end of an epoch, and before each validation and
    checkpoint.
    """

    def __init__(self, every: int = 50) -> None:
        require(integer(1), every=every)
        self.every = every

    def flush(self, trainer: Trainer) -> None:
        """Reads all values that are kept."""

    def on_train_epoch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.flush(trainer)

    on_validation_start = on_save_checkpoint = on_train_epoch_end


class EnergyMonitor(_Buffer):
    """Logs energies, delta energies, AAE share, PertAlign, accuracies and losses of each step.

    Training is bit-identical with and without it. Clean logits that the attack has not computed
    cost one forward pass a step. ``train/pert_align`` is logged where it is free: the attack
    ascends the cross-entropy with ``bn_mode="batch"`` at the weights of the step (no AWP), ``x*``
    is trained by its cross-entropy alone (no TRADES, DER or AAER; GradAlign and ELLE are fine), and
    the network is not compiled. With restarts the start is that of the first one.

    Args:
        every: Steps (>= 1) between two transfers to the host, of rows that keep their own step.
    """

    def __init__(self, every: int = 50) -> None:
        super().__init__(every)
        self.latest: Row = {}
        self.readers: list[Reader] = []  # called with all rows, after the loggers
        self._names: list[str] = []
        self._values: list[Tensor] = []
        self._on_host: list[Row] = []
        self._lr = 0.0
        self._images = 0
        self._since = time.monotonic()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, AdversarialTraining):
            pl_module.observes_clean = True
            pl_module.observes_gradients = not callbacks_of(trainer, CompiledNet)

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]  # before the schedule is stepped

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        if "pair" not in outputs:
            raise TypeError(f"EnergyMonitor needs steps that return a pair, got {[*outputs]}")
        pair = outputs["pair"]
        values = {f"train/{name}": value for name, value in pair_metrics(pair).items()}
        if "gradients" in outputs:
            start_grad, x_adv = outputs["gradients"]
            cosines = pert_align(start_grad, x_adv.grad)
            values["train/pert_align"] = summed(cosines.sum()) / len(pair.y)
        values |= {f"train/loss/{name}": part for name, part in outputs["parts"].items()}
        values["train/loss"] = outputs["loss"].detach()
        if self._values and self._names != list(values):
            self.flush(trainer)  # the objective has changed
        self._names = list(values)
        self._values.append(torch.stack([value.float() for value in values.values()]))
        self._on_host.append(
            {"step": trainer.global_step, "epoch": trainer.current_epoch, "lr": self._lr}
        )
        self._images += len(pair.y)
        if len(self._values) >= self.every:
            self.flush(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.monotonic()  # the rate excludes the validation

    on_exception = _Buffer.on_train_epoch_end

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


class FiniteGuard(_Buffer):
    """Raises on a loss or a weight that is not finite, or on images outside [0, 1].

    No checkpoint of a broken network is written.

    Args:
        every: Steps (>= 1) between two checks; each validation and checkpoint is preceded by one.
    """

    def __init__(self, every: int = 50) -> None:
        super().__init__(every)
        self._losses: list[Tensor] = []
        self._pixels: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        self._losses.append(outputs["loss"].detach())
        if "pixels" in outputs:
            self._pixels.append(outputs["pixels"])
        if len(self._losses) >= self.every:
            self.flush(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Raises rather than save a broken network."""
        self.flush(trainer)
        finite = torch.stack([p.detach().isfinite().all() for p in pl_module.parameters()])
        if not finite.all():
            raise _broken("a weight is not finite", trainer.global_step)

    def flush(self, trainer: Trainer) -> None:
        losses, self._losses = self._losses, []
        pixels, self._pixels = self._pixels, []
        if not losses:
            return
        if pixels:
            extremes = torch.stack(pixels)
            require_pixels(float(extremes[:, 0].min()), float(extremes[:, 1].max()), "training")
        bad = (~torch.stack(losses).isfinite()).nonzero()
        if len(bad):
            index = int(bad[0])
            step = trainer.global_step - len(losses) + index + 1
            raise _broken(f"the loss is {losses[index].item()}", step)


class RunProgress(TQDMProgressBar):
    """Loss, clean and adversarial accuracy, dE(x), images per second, time left of the whole run.

    It shows the last row of the energy monitor, so that drawing needs no synchronisation.
    """

    _clock = (0.0, 0)  # when the training started or resumed, and at which step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._clock = (time.monotonic(), trainer.global_step)

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        """Ends the line of the bar before an error is printed."""
        for bar in (self._val_progress_bar, self._train_progress_bar):
            if bar is not None:
                bar.close()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        row = next((monitor.latest for monitor in callbacks_of(trainer, EnergyMonitor)), {})
        values = {
            metric.short: f"{row[metric.key]:{metric.form}}"
            for metric in (LOSS, CLEAN, ATTACKED, DELTA_X, RATE)
            if metric.key in row
        }
        return values | {"left": self._left(trainer)}

    def _left(self, trainer: Trainer) -> str:
        start, first = self._clock
        done, total = trainer.global_step - first, trainer.estimated_stepping_batches
        if done < 1 or total == float("inf"):
            return "?"
        seconds = int((time.monotonic() - start) / done * (total - trainer.global_step))
        return f"{seconds // 60}:{seconds % 60:02d}"


def _broken(what: str, step: int) -> FloatingPointError:
    return FloatingPointError(
        f"{what} at step {step}: training stopped, checkpoints written before are kept; "
        "lower optimizer.lr, or the weights of the loss and its regularizers"
    )
