"""Watches a training for the loss of its robustness, and acts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch.optim.lr_scheduler import LRScheduler

from energy_at.attacks import Attack, NoAttack
from energy_at.core.progress import write_line
from energy_at.core.ranges import Action, Remedy, require_ranges
from energy_at.core.rules import ArgumentError
from energy_at.data import EvalLoader
from energy_at.objectives import Objective, Weighted, fits_adv_alone
from energy_at.overfitting import Alarm, Detector, Thresholds
from energy_at.training.callbacks import callbacks_of
from energy_at.training.callbacks.monitors import EnergyMonitor
from energy_at.training.module import AdversarialTraining
from energy_at.training.rollback import Remedies, Rollback
from energy_at.training.trackers import trackers


class Sentinel(Callback):
    """Raises an alarm at the onset of catastrophic (CO) or robust overfitting (RO).

    It reads the rows of the energy monitor as they reach the host, and every validation: ``warn``
    leaves training bit-identical. An alarm is a line on the terminal, a row of ``metrics.csv``, and
    an alert of W&B.

    Args:
        dirpath: Folder of ``healthy.ckpt``.
        der: See ``Remedies``, as for ``remedy`` and ``factor``.
        action: ``warn``; ``checkpoint`` keeps ``healthy.ckpt``, of the last epoch that ended
            without a signal and, if there are held-out images, robust on them; ``stop`` keeps it
            too and ends the training; ``rollback`` keeps it too, restores it (or the initial
            weights), and applies a remedy.
        rollbacks: Their limit, after which alarms only warn.
        rewind: Whether a rollback rewinds schedules and warm-ups too, and extends the training by
            the repeated epochs.

    Raises:
        ValueError: if a value is out of its range.
    """

    module: AdversarialTraining  # the training that is watched

    def __init__(
        self,
        dirpath: str | Path,
        *,
        classes: int,
        der: Weighted,
        action: Action = "warn",
        thresholds: Thresholds | None = None,
        remedy: Remedy = "auto",
        factor: float = 2.0,
        rollbacks: int = 3,
        rewind: bool = True,
    ) -> None:
        limits = {"classes": classes, "rollbacks": rollbacks, "rewind": rewind}
        require_ranges("training.Sentinel", action=action, **limits)
        self.file = Path(dirpath) / "healthy.ckpt"
        self.action = action
        self.detector = Detector(thresholds or Thresholds(), classes)
        self.rollback = Rollback(Remedies(remedy, der, factor), rollbacks, rewind)
        self.alarms: list[Alarm] = []
        self._watches = False
        self._pending = False  # a rollback, at the next step
        self._validated_at = -1  # step
        self._stopped_at: int | None = None  # max_epochs of the training that was stopped

    def require_fitting(
        self, trainer: Trainer, objective: Objective, attack: Attack, *schedulers: LRScheduler
    ) -> None:
        """Raises ``ValueError`` if the action is not possible; warnings need no energy monitor."""
        if self.action != "warn" and not callbacks_of(trainer, EnergyMonitor):
            must = "warn without an energy monitor among the callbacks"
            raise ArgumentError("action", self.action, must)
        limit = self.detector.co.thresholds.pert_align
        if limit is not None and not (fits_adv_alone(objective) and attack.climbs_loss):
            must = (
                "null, unless the attack raises the cross-entropy of the label (all but none, "
                "trades and nuat), and that of x* is the loss, alone or with GradAlign or ELLE"
            )
            raise ArgumentError("pert_align", limit, must)
        if self.action == "rollback":
            self.rollback.require_possible(objective, attack, schedulers)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Subscribes to the monitor; a resumed training continues as its rollbacks left it."""
        if not isinstance(pl_module, AdversarialTraining):
            raise TypeError(f"Sentinel needs an AdversarialTraining, got {type(pl_module)}")
        self.module = pl_module
        objective, attack = self.rollback.begin(trainer, pl_module)
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        self.require_fitting(trainer, objective, attack, *schedulers)
        self._watches = not isinstance(attack, NoAttack)  # else there is no robustness to lose
        self.detector.co.climbs_loss = attack.climbs_loss
        for monitor in callbacks_of(trainer, EnergyMonitor):
            if self.read not in monitor.readers:
                monitor.readers.append(self.read)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.action == "rollback" and self.rollback.healthy is None:
            self.rollback.keep(trainer, self.module)
        if self._stopped_at is not None and (trainer.max_epochs or 0) <= self._stopped_at:
            trainer.should_stop = True

    def read(self, trainer: Trainer, rows: Sequence[Mapping[str, float]]) -> None:
        """Feeds rows of steps, or of a validation, to the detector in their order."""
        for row in rows if self._watches else ():
            if (alarm := self.detector.update(row)) is not None:
                self._raise(trainer, alarm)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            if isinstance(loader := trainer.val_dataloaders, EvalLoader):
                batches = int(sum(trainer.num_val_batches))
                self.detector.ro.images = min(len(loader.images), batches * loader.batch_size)
            row = {k: float(v) for k, v in trainer.callback_metrics.items() if k[:4] == "val/"}
            self.read(trainer, [{"step": float(trainer.global_step), **row}])
            self._validated_at = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Rolls back after everything that follows a step."""
        self._roll_back(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Rolls back before the epoch is saved, or keeps the epoch if it is healthy."""
        if self._roll_back(trainer) or self.action == "warn" or not self.detector.is_healthy:
            return
        validated = self._validated_at == trainer.global_step and self.detector.co.is_robust
        if trainer.enable_validation and not validated:
            return
        if self.action == "rollback":
            self.rollback.keep(trainer, self.module)
        trainer.save_checkpoint(self.file)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the state, after the monitor has delivered the last rows."""
        checkpoint["sentinel"] = {
            "detector": self.detector.state_dict(),
            "rollback": self.rollback.state_dict(),
            "alarms": [asdict(alarm) for alarm in self.alarms],
            "pending": self._pending,
            "stopped_at": self._stopped_at,
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if "sentinel" in checkpoint:  # the training had one before
            state = checkpoint["sentinel"]
            self.detector.load_state_dict(state["detector"])
            self.rollback.load_state_dict(state["rollback"])
            self.alarms = [Alarm(**alarm) for alarm in state["alarms"]]
            self._pending, self._stopped_at = state["pending"], state["stopped_at"]

    def _raise(self, trainer: Trainer, alarm: Alarm) -> None:
        self.alarms.append(alarm)
        _log(trainer, alarm.step, alarm.row())
        if self.action == "rollback" and len(self.rollback.steps) < self.rollback.limit:
            self._pending = True
        elif self.action == "stop":
            self._stopped_at, trainer.should_stop = trainer.max_epochs or 0, True
        text = str(alarm)
        if self.detector.never_robust:
            text += "; the network has not been robust yet"
        _print(f"{text}{self._consequence()}")
        for logger in trackers(trainer.loggers):
            logger.alert(f"{alarm.kind} alarm", text)

    def _consequence(self) -> str:
        if self.action == "stop":
            return ": training stops"
        if self.action == "rollback" and not self._pending:
            return f": rollback limit ({self.rollback.limit}) reached"
        if self.action == "checkpoint":
            kept = self.file.is_file()
            return f": {self.file} is healthy" if kept else ": no epoch before was healthy"
        return ""

    def _roll_back(self, trainer: Trainer) -> bool:
        pending, self._pending = self._pending, False
        if pending:
            row, line = self.rollback.roll_back(trainer, self.module)
            self.detector.reset()
            _log(trainer, trainer.global_step, row)
            _print(line)
        return pending


def _log(trainer: Trainer, step: int, row: Mapping[str, float]) -> None:
    for logger in trainer.loggers:
        logger.log_metrics({"epoch": trainer.current_epoch, **row}, step=step)
        logger.save()


@rank_zero_only
def _print(line: str) -> None:
    write_line(line)
