"""Rollbacks: restore a healthy state, rewind the schedule, apply a remedy, extend the training."""

from collections.abc import Mapping
from math import ceil
from typing import Any

from lightning import Trainer
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from energy_at.attacks import Attack
from energy_at.objectives import Objective
from energy_at.overfitting.alarms import REPEATED, ROLLBACK
from energy_at.training.callbacks import callbacks_of
from energy_at.training.callbacks.ema import EMA
from energy_at.training.module import AdversarialTraining
from energy_at.training.sentinel.remedies import Remedies

Snapshot = dict[str, Any]  # tensors and plain values, as a checkpoint may hold them
_CLOSED = (LambdaLR, OneCycleLR)  # their learning rate is a function of the step alone
_STATE = ("healthy", "steps", "repeated", "repeated_steps")


class Rollback:
    """The rollbacks of one training.

    Args:
        remedies: Applied after each.
        limit: Rollbacks at most.
        rewinds: Whether the learning-rate schedule and the warm-ups are restored too, to where they
            were at the healthy state or less than an epoch before it. The training is then extended
            by the epochs that it repeats.

    Attributes:
        healthy: State that the next one restores.
        steps: Optimizer steps at which there was one.
        repeated: Epochs by which the training is extended.
        repeated_steps: Optimizer steps of these epochs.
    """

    def __init__(self, remedies: Remedies, limit: int, rewinds: bool) -> None:
        self.remedies = remedies
        self.limit = limit
        self.rewinds = rewinds
        self.healthy: Snapshot | None = None
        self.steps: list[int] = []
        self.repeated = 0
        self.repeated_steps = 0
        self._extended = (0, 0)  # epochs and steps that the trainer has been given
        self._began: tuple[AdversarialTraining, Objective, Attack] | None = None

    @property
    def is_available(self) -> bool:
        """Whether the limit is not reached."""
        return len(self.steps) < self.limit

    def require_possible(self, trainer: Trainer, objective: Objective, attack: Attack) -> None:
        """Checks the remedy and the schedule before the training begins.

        Raises:
            ValueError: if the remedy does not fit the training, or its schedule cannot be rewound.
        """
        self.remedies.apply(objective, attack, 1)
        for config in trainer.lr_scheduler_configs if self.rewinds else ():
            if not isinstance(config.scheduler, _CLOSED):
                name = type(config.scheduler).__name__
                raise ValueError(
                    f"callbacks.sentinel.rewind=true cannot rewind a {name}: choose rewind=false, "
                    "or a LambdaLR or OneCycleLR"
                )

    def begin(self, trainer: Trainer, module: AdversarialTraining) -> tuple[Objective, Attack]:
        """Extends and treats a training that resumes, as before; returns what it began with."""
        if self._began is None or self._began[0] is not module:
            self._began = (module, module.objective, module.attack)
        self._extend(trainer)
        module.repeated_epochs = self.repeated
        if self.steps:
            self._treat()
        return self._began[1:]

    def keep(self, trainer: Trainer, module: AdversarialTraining) -> None:
        """Keeps the present state as the healthy one."""
        self.healthy = snapshot(trainer, module) | {"repeated": self.repeated}

    def roll_back(
        self, trainer: Trainer, module: AdversarialTraining
    ) -> tuple[dict[str, float], str]:
        """Restores the healthy state; returns a row of ``metrics.csv`` and a line for the user.

        Attack noise and data order are functions of the position in the training. They continue, so
        that none comes twice.
        """
        assert self.healthy is not None
        step, healthy = trainer.global_step, self.healthy["step"]
        self.steps.append(step)
        restore(self.healthy, trainer, module)
        row = {ROLLBACK: float(healthy)}
        line = f"step {step}: rollback restores step {healthy}, applies {self._treat()}"
        if self.rewinds:
            epochs = self._rewind(trainer, module, self.healthy)
            row[REPEATED] = float(self.repeated)
            line += f", extends training by {epochs} epoch{'' if epochs == 1 else 's'}"
        return row, line

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state."""
        for name in _STATE:
            setattr(self, name, state[name])

    def _treat(self) -> str:
        assert self._began is not None
        module, objective, attack = self._began
        module.objective, module.attack, description = self.remedies.apply(
            objective, attack, len(self.steps)
        )
        return description

    def _rewind(self, trainer: Trainer, module: AdversarialTraining, healthy: Snapshot) -> int:
        """Rewinds schedule and warm-ups by whole epochs, and extends the training by as many."""
        per_epoch = _steps_per_epoch(trainer)
        before = (self.repeated - int(healthy["repeated"])) * per_epoch
        lost = trainer.global_step - int(healthy["step"]) - before
        epochs = max(0, ceil(lost / per_epoch))
        self.repeated += epochs
        self.repeated_steps += epochs * per_epoch
        self._extend(trainer)
        module.repeated_epochs = self.repeated
        for config in trainer.lr_scheduler_configs:
            scheduler = config.scheduler
            assert isinstance(scheduler, _CLOSED)
            scheduler.last_epoch -= epochs * per_epoch + 1
            scheduler.step()
        return epochs

    def _extend(self, trainer: Trainer) -> None:
        """Gives the trainer the epochs, and the steps if it limits them, that it does not have."""
        epochs, steps = self._extended
        loop = trainer.fit_loop
        if loop.max_epochs is not None and loop.max_epochs >= 0:
            loop.max_epochs += self.repeated - epochs
        if loop.epoch_loop.max_steps >= 0:
            loop.epoch_loop.max_steps += self.repeated_steps - steps
        self._extended = (self.repeated, self.repeated_steps)


def snapshot(trainer: Trainer, module: AdversarialTraining) -> Snapshot:
    """Network, optimizer, objective and weight averages, on the host."""
    live = {
        "network": module.state_dict(),
        "optimizer": trainer.optimizers[0].state_dict()["state"],
        "objective": module.objective.state_dict(),
        "averages": [callback.average_state() for callback in callbacks_of(trainer, EMA)],
    }
    return {"step": trainer.global_step, **_on_host(live)}


def restore(state: Mapping[str, Any], trainer: Trainer, module: AdversarialTraining) -> None:
    """Restores a snapshot, except for the learning rate."""
    module.load_state_dict(state["network"])
    optimizer = trainer.optimizers[0]
    groups = optimizer.state_dict()["param_groups"]
    # the optimizer keeps the tensors that it is given, and changes them
    optimizer.load_state_dict({"state": _on_host(state["optimizer"]), "param_groups": groups})
    module.objective.load_state_dict(_on_host(state["objective"]))
    for callback, average in zip(callbacks_of(trainer, EMA), state["averages"], strict=True):
        callback.restore(average)


def _steps_per_epoch(trainer: Trainer) -> int:
    batches = trainer.num_training_batches
    if batches == float("inf"):
        raise ValueError(
            "callbacks.sentinel.rewind=true repeats whole epochs, and the loader does not know how "
            "many batches one has: choose rewind=false"
        )
    return ceil(batches / trainer.accumulate_grad_batches)


def _on_host(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _on_host(item) for key, item in value.items()}
    return [_on_host(item) for item in value] if isinstance(value, list) else value
