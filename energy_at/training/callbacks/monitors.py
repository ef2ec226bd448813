"""What is read of every step: energies, finite values, the progress bar."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from torch import Tensor

from energy_at.core.distributed import summed
from energy_at.core.progress import Bar, clock, has_bars, write_line
from energy_at.core.ranges import require_ranges
from energy_at.energy.metrics import pair_metrics
from energy_at.objectives import pert_align
from energy_at.reporting.panels import ATTACKED, DELTA_X, RATE
from energy_at.training.callbacks import callbacks_of
from energy_at.training.callbacks.networks import CompiledNet
from energy_at.training.guard import StepBuffer
from energy_at.training.module import AdversarialTraining

Row = dict[str, float]
Reader = Callable[[Trainer, Sequence[Row]], None]


class EnergyMonitor(StepBuffer):
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

    on_exception = StepBuffer.on_train_epoch_end

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


class RunProgress(ProgressBar):
    """One bar for the whole training on a terminal, within 80 columns; elsewhere a line an epoch.

    ``epoch 3/30 |███   | dE(x) -0.004, adv 43 %, 1204 img/s, 3:05 left``: dE(x) and accuracy under
    the training attack, and the time left of the whole run. The bar shows the last row of the
    energy monitor, so that drawing needs no synchronisation; a line shows means of the epoch, and
    the accuracies of its validation.

    Args:
        refresh_rate: Steps (>= 1) between two updates of the bar.
    """

    def __init__(self, refresh_rate: int = 5) -> None:
        super().__init__()
        require_ranges("training.RunProgress", refresh_rate=refresh_rate)
        self.refresh_rate = refresh_rate
        self._enabled = True
        self._bar: Bar | None = None
        self._rows: list[Row] = []  # of the epoch
        self._validated = False  # in this epoch
        self._clock = (0.0, 0)  # when the training started or resumed, and at which step

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_bar": None}

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        """Lightning disables it in all processes but the first."""
        self._enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._clock = (time.monotonic(), trainer.global_step)
        self._validated = False  # but by the check before the training
        self._bar = Bar(visible=self._enabled, bar_format="{desc}")
        for monitor in callbacks_of(trainer, EnergyMonitor):
            if self._read not in monitor.readers:
                monitor.readers.append(self._read)

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step % self.refresh_rate == 0:
            self._draw(trainer, self._latest(trainer))

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        if trainer.training or trainer.validating or trainer.sanity_checking:
            batches = int(sum(trainer.num_val_batches))
            self._draw(trainer, [f"validation {batch_idx + 1}/{batches}", self._left(trainer)])

    def on_validation_end(self, *args: Any, **kwargs: Any) -> None:
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, self._latest(trainer))
        rows, self._rows = self._rows, []
        validated, self._validated = self._validated, False
        if not self._enabled or has_bars():
            return
        means = {
            key: sum(values) / len(values)
            for key in (DELTA_X.key, ATTACKED.key, RATE.key)
            if (values := [row[key] for row in rows if key in row])
        }
        held_out = [
            f"{key.removeprefix('val/acc/')} {100 * float(value):.1f} %"
            for key, value in trainer.callback_metrics.items()
            if validated and key.startswith("val/acc/")
        ]
        held_out = [f"held-out {held_out[0]}", *held_out[1:]] if held_out else []
        cells = [*_cells(means), *held_out, self._left(trainer)]
        write_line(f"{_epoch(trainer)}: {', '.join(filter(None, cells))}")

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        """Ends the line of the bar before an error is printed."""
        self.on_train_end()

    def _read(self, trainer: Trainer, rows: Sequence[Row]) -> None:
        self._rows.extend(rows)

    def _latest(self, trainer: Trainer) -> list[str]:
        row = next((monitor.latest for monitor in callbacks_of(trainer, EnergyMonitor)), {})
        return [*_cells(row), self._left(trainer)]

    def _draw(self, trainer: Trainer, cells: Sequence[str]) -> None:
        if self._bar is None or self._bar.disable:
            return
        total = trainer.estimated_stepping_batches
        self._bar.total = None if total == float("inf") else int(total)
        bar = " |{bar}| " if self._bar.total else " "
        self._bar.bar_format = f"{_epoch(trainer)}{bar}{', '.join(filter(None, cells))}"
        self._bar.n = trainer.global_step
        self._bar.refresh()

    def _left(self, trainer: Trainer) -> str:
        start, first = self._clock
        done, total = trainer.global_step - first, trainer.estimated_stepping_batches
        if done < 1 or total == float("inf"):
            return ""
        per_step = (time.monotonic() - start) / done
        return f"{clock(per_step * (total - trainer.global_step))} left"


def _epoch(trainer: Trainer) -> str:
    last = trainer.max_epochs
    return f"epoch {trainer.current_epoch + 1}" + (f"/{last}" if last and last > 0 else "")


def _cells(row: Row) -> list[str]:
    """``dE(x) -0.004``, ``adv 43 %`` and ``1204 img/s``, as far as they are known."""
    cells = [
        (DELTA_X, f"{DELTA_X.short} {{:{DELTA_X.form}}}"),
        (ATTACKED, f"{ATTACKED.short} {{:.0f}} %"),
        (RATE, f"{{:{RATE.form}}} {RATE.short}"),
    ]
    return [form.format(m.scale * row[m.key]) for m, form in cells if m.key in row]
