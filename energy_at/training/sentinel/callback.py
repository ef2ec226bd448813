"""Watches a training for the loss of its robustness, and acts."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import ceil
from pathlib import Path
from typing import Any, Literal, get_args

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

from energy_at.attacks import Attack, NoAttack, climbs_loss
from energy_at.data import EvalLoader
from energy_at.objectives import Objective, Weighted
from energy_at.overfitting.alarms import REPEATED, ROLLBACK, Alarm, Thresholds
from energy_at.overfitting.detector import Detector
from energy_at.training.callbacks.energy_monitor import EnergyMonitor
from energy_at.training.loggers.wandb import alert
from energy_at.training.module import AdversarialTraining
from energy_at.training.sentinel.remedies import Remedies, Remedy
from energy_at.training.sentinel.rollback import (
    lengthen,
    require_rewindable,
    rewind,
    steps_per_epoch,
)
from energy_at.training.sentinel.snapshot import Snapshot, restore, taken

Action = Literal["warn", "stop", "checkpoint", "rollback"]


class Sentinel(Callback):
    """Raises an alarm at the onset of catastrophic (CO) or robust overfitting (RO).

    It reads the rows of the energy monitor as they reach the host, and every validation; no step
    waits for it, and with ``warn`` the training is the one without it, bit for bit. An alarm is a
    line on the terminal, a row of ``metrics.csv``, and an alert of W&B.

    Args:
        dirpath: Folder of ``healthy.ckpt``.
        classes: Of the data set.
        action: ``warn``; ``checkpoint``, which keeps ``healthy.ckpt``, of the last epoch that ended
            without a sign and, where there are held-out images, robust on them; ``stop``, which
            keeps it too and ends the training; ``rollback``, which keeps it too, and goes on from
            that state, or from the beginning where there is none, with a remedy.
        thresholds: Of the signs.
        remedy: See ``Remedies``.
        der: Likewise.
        factor: Likewise.
        rollbacks: At most so many; later alarms only warn.
        rewind: Whether a rollback takes learning rate and warm-ups back as well, to where they were
            with that state or less than an epoch before. The training then lasts as many epochs
            longer as it repeats. ``False``: they go on, and so much less is left to learn again.
    """

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
        if action not in get_args(Action):
            known = ", ".join(get_args(Action))
            raise ValueError(f"callbacks.sentinel.action={action} is none of {known}")
        if rollbacks < 1:
            raise ValueError(f"callbacks.sentinel.rollbacks={rollbacks} must be >= 1")
        self.file = Path(dirpath) / "healthy.ckpt"
        self.action = action
        self.rollbacks = rollbacks
        self.rewind = rewind
        self.remedies = Remedies(remedy, der, factor)
        self.detector = Detector(thresholds or Thresholds(), classes)
        self.healthy: Snapshot | None = None  # to come back to
        self.alarms: list[Alarm] = []
        self.returned_at: list[int] = []  # steps from which the training went on with a remedy
        self.repeated = 0  # epochs
        self._repeated_steps = 0
        self._lengthened = (0, 0)  # epochs and steps that the trainer has got for them
        self._pending = False
        self._validated_at = -1  # step
        self._stopped_at: int | None = None  # epochs that the stopped training was to have
        self._began: tuple[AdversarialTraining, Objective, Attack] | None = None

    def require_fitting(self, trainer: Trainer, objective: Objective, attack: Attack) -> None:
        """Refuses an action that could not be taken when it comes to it.

        To warn, held-out images alone may do; to act, the steps are needed too.

        Raises:
            ValueError: with the cure.
        """
        if self.action != "warn" and not _monitors(trainer):
            raise ValueError(
                f"callbacks.sentinel.action={self.action} acts on what callbacks.energy measures: "
                "leave it in, or choose callbacks.sentinel.action=warn"
            )
        if self.action == "rollback":
            self.remedies.applied(objective, attack, 1)
            if self.rewind:
                require_rewindable(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Subscribes to the monitor, and treats a resumed training as it was treated before."""
        if not isinstance(pl_module, AdversarialTraining):
            raise TypeError(f"the sentinel watches an AdversarialTraining, not {type(pl_module)}")
        if self._began is None or self._began[0] is not pl_module:
            self._began = (pl_module, pl_module.objective, pl_module.attack)
        self.require_fitting(trainer, *self._began[1:])
        for monitor in _monitors(trainer):
            if self.read not in monitor.readers:
                monitor.readers.append(self.read)
        self.detector.co.climbs_loss = climbs_loss(self._began[2])
        epochs, steps = self._lengthened
        lengthen(trainer, self.repeated - epochs, self._repeated_steps - steps)
        self._lengthened = (self.repeated, self._repeated_steps)
        pl_module.repeated_epochs = self.repeated
        if self.returned_at:
            self._treat()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Has a state to come back to from the first step on."""
        if self.action == "rollback" and self.healthy is None:
            self.healthy = self._taken(trainer)
        if self._stopped_at is not None and (trainer.max_epochs or 0) <= self._stopped_at:
            trainer.should_stop = True

    def read(self, trainer: Trainer, rows: Sequence[Mapping[str, float]]) -> None:
        """Looks at rows of steps, or of a validation, in their order."""
        if self._began is None or isinstance(self._began[2], NoAttack):
            return  # standard training has no robustness to lose
        for row in rows:
            alarm = self.detector.update(row)
            if alarm is not None:
                self._raise(trainer, alarm)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the held-out images."""
        if not trainer.sanity_checking:
            self.detector.ro.images = _held_out(trainer)
            seen = {k: float(v) for k, v in trainer.callback_metrics.items() if k[:4] == "val/"}
            self.read(trainer, [{"step": float(trainer.global_step), **seen}])
            self._validated_at = trainer.global_step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Goes back, once all that follows a step is done."""
        self._settle(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Goes back before the epoch is saved, or keeps what has shown no sign."""
        if self._settle(trainer) or self.action == "warn" or not self._is_healthy(trainer):
            return
        if self.action == "rollback":
            self.healthy = self._taken(trainer)
        trainer.save_checkpoint(self.file)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keeps what it remembers; comes after the monitor has brought the last rows."""
        checkpoint["sentinel"] = {
            "detector": self.detector.state_dict(),
            "healthy": self.healthy,
            "alarms": [asdict(alarm) for alarm in self.alarms],
            "returned_at": list(self.returned_at),
            "repeated": self.repeated,
            "repeated_steps": self._repeated_steps,
            "pending": self._pending,
            "stopped_at": self._stopped_at,
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Goes on with it; a run older than the sentinel has nothing."""
        if "sentinel" in checkpoint:
            state = checkpoint["sentinel"]
            self.detector.load_state_dict(state["detector"])
            self.healthy, self._pending = state["healthy"], state["pending"]
            self._stopped_at = state["stopped_at"]
            # older checkpoints count the returns alone
            self.returned_at = list(state.get("returned_at", [0] * state.get("returns", 0)))
            self.repeated = int(state.get("repeated", 0))  # older ones have repeated none
            self._repeated_steps = int(state.get("repeated_steps", 0))
            self.alarms = [Alarm(**alarm) for alarm in state.get("alarms", [])]

    @property
    def module(self) -> AdversarialTraining:
        """The training that is watched."""
        assert self._began is not None
        return self._began[0]

    def _is_healthy(self, trainer: Trainer) -> bool:
        """No sign in the steps, and none on held-out images, where there are any, of this epoch."""
        validated = self._validated_at == trainer.global_step and self.detector.co.is_robust
        return self.detector.is_healthy and (validated or not trainer.enable_validation)

    def _taken(self, trainer: Trainer) -> Snapshot:
        return taken(trainer, self.module) | {"repeated": self.repeated}

    def _raise(self, trainer: Trainer, alarm: Alarm) -> None:
        self.alarms.append(alarm)
        _log(trainer, alarm.step, alarm.row())
        if self.action == "rollback" and len(self.returned_at) < self.rollbacks:
            self._pending = True
        elif self.action == "stop":
            self._stopped_at, trainer.should_stop = trainer.max_epochs or 0, True
        _tell(f"{alarm}{self._consequence()}")
        alert(trainer.loggers, f"{alarm.kind} alarm", str(alarm))

    def _consequence(self) -> str:
        if self.action == "stop":
            return ": training stops"
        if self.action == "rollback" and not self._pending:
            return f": no return is left of {self.rollbacks}"
        if self.action == "checkpoint":
            kept = self.file.is_file()
            return f": {self.file} was healthy" if kept else ": no epoch before was healthy"
        return ""

    def _settle(self, trainer: Trainer) -> bool:
        """Whether the training went back."""
        if not self._pending:
            return False
        assert self.healthy is not None
        self._pending = False
        self.returned_at.append(trainer.global_step)
        restore(self.healthy, trainer, self.module)
        words = self._treat() + self._rewound(trainer, self.healthy)
        self.detector.reset()
        step, back = trainer.global_step, self.healthy["step"]
        repeated = {REPEATED: float(self.repeated)} if self.rewind else {}
        _log(trainer, step, {ROLLBACK: float(back), **repeated})
        _tell(f"step {step}: back to the network of step {back}, on with {words}")
        return True

    def _rewound(self, trainer: Trainer, healthy: Snapshot) -> str:
        """Takes the schedule back to the epoch of a state, and says how much longer it takes."""
        if not self.rewind:
            return ""
        # a state is of the end of an epoch, or of the beginning; older ones do not say
        before = self.repeated - healthy.get("repeated", 0)
        gone = trainer.global_step - healthy["step"] - before * steps_per_epoch(trainer)
        epochs = max(0, ceil(gone / steps_per_epoch(trainer)))
        self._repeated_steps += rewind(trainer, self.module, epochs)
        self.repeated += epochs
        self._lengthened = (self.repeated, self._repeated_steps)
        return f", {epochs} epoch{'' if epochs == 1 else 's'} longer"

    def _treat(self) -> str:
        """Gives the module the objective and the attack of as many returns as there were."""
        assert self._began is not None
        module, objective, attack = self._began
        module.objective, module.attack, words = self.remedies.applied(
            objective, attack, len(self.returned_at)
        )
        return words


def _monitors(trainer: Trainer) -> list[EnergyMonitor]:
    return [c for c in trainer.callbacks if isinstance(c, EnergyMonitor)]  # type: ignore[attr-defined]


def _held_out(trainer: Trainer) -> int | None:
    """Images of a validation, if the loader is ours."""
    loader = trainer.val_dataloaders
    if not isinstance(loader, EvalLoader):
        return None
    return min(len(loader.images), int(sum(trainer.num_val_batches)) * loader.batch_size)


def _log(trainer: Trainer, step: int, row: Mapping[str, float]) -> None:
    for logger in trainer.loggers:
        logger.log_metrics({"epoch": trainer.current_epoch, **row}, step=step)
        logger.save()


@rank_zero_only
def _tell(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
