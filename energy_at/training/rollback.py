"""Rollbacks: restore a healthy state, rewind the schedule, apply a remedy, extend the training."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from lightning import Trainer
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from energy_at.attacks import Attack, with_alpha
from energy_at.core.ranges import Remedy, require_ranges
from energy_at.core.rules import ArgumentError
from energy_at.objectives import DER, Objective, Weighted
from energy_at.overfitting.alarms import REPEATED, ROLLBACK
from energy_at.training.callbacks import callbacks_of
from energy_at.training.callbacks.networks import EMA
from energy_at.training.module import AdversarialTraining

Snapshot = dict[str, Any]  # tensors and plain values, as a checkpoint may hold them
_CLOSED = (LambdaLR, OneCycleLR)  # their learning rate is a function of the step alone
_STATE = ("healthy", "steps", "repeated", "repeated_steps")


@dataclass(frozen=True)
class Remedies:
    """Changes of the objective or of the training attack against overfitting.

    Attributes:
        remedy: ``der`` switches DER on, ``beta`` raises its weight, ``alpha`` lowers the step size
            of the training attack; ``auto`` is ``beta`` for a training with DER, ``der`` without.
        der: DER as it is switched on.
        factor: By which weight or step size change at each rollback (``der``: from the second on).

    Raises:
        ValueError: if a value is out of its range.
    """

    remedy: Remedy
    der: Weighted
    factor: float = 2.0

    def __post_init__(self) -> None:
        require_ranges("training.Remedies", self)

    def apply(
        self, objective: Objective, attack: Attack, times: int
    ) -> tuple[Objective, Attack, str]:
        """Objective and attack after ``times`` (>= 1) rollbacks, and a description of the change.

        Raises:
            ValueError: if the remedy does not fit the training.
        """
        own = next((n for n, w in objective.terms.items() if isinstance(w.term, DER)), None)
        remedy = ("der" if own is None else "beta") if self.remedy == "auto" else self.remedy
        if remedy == "alpha":
            divisor = f"step size / {self.factor**times:g}"
            with suppress(ValueError):
                return objective, with_alpha(attack, self.factor**-times), divisor
            kind = type(attack).__name__
            raise ArgumentError("remedy", remedy, f"der or beta: {kind} has no step size to lower")
        if (remedy == "beta") == (own is None):
            use, has = ("der", "no DER") if own is None else ("beta", "DER")
            raise ArgumentError("remedy", remedy, f"{use}, as the training has {has}")
        weighted = self.der if own is None else objective.terms[own]
        growth = self.factor ** (times - (own is None))
        stronger = replace(weighted, weight=growth * weighted.weight)
        terms = {**objective.terms, own or "der": stronger}
        description = f"DER of weight {stronger.weight:g}"
        return Objective(terms, skip_flat=objective.skip_flat), attack, description


class Rollback:
    """The rollbacks of one training, ``limit`` at most, each followed by the remedy.

    If it ``rewinds``, the learning-rate schedule and the warm-ups are restored too, to where they
    were at the healthy state or less than an epoch before it, and the training is extended by the
    epochs that it repeats.
    """

    def __init__(self, remedies: Remedies, limit: int, rewinds: bool) -> None:
        self.remedies = remedies
        self.limit = limit
        self.rewinds = rewinds
        self.healthy: Snapshot | None = None  # which the next one restores
        self.steps: list[int] = []  # optimizer steps at which there was one
        self.repeated = 0  # epochs by which the training is extended
        self.repeated_steps = 0  # optimizer steps of these epochs
        self._extended = (0, 0)  # epochs and steps that the trainer has been given
        self._began: tuple[AdversarialTraining, Objective, Attack] | None = None

    def require_possible(
        self, objective: Objective, attack: Attack, schedulers: Sequence[LRScheduler]
    ) -> None:
        """Raises ``ValueError`` if the remedy does not fit, or the schedule cannot be rewound."""
        self.remedies.apply(objective, attack, 1)
        for scheduler in schedulers if self.rewinds else ():
            if not isinstance(scheduler, _CLOSED):
                kind = type(scheduler).__name__
                must = f"false for a {kind}: only LambdaLR and OneCycleLR are rewound"
                raise ArgumentError("rewind", True, must)

    def begin(self, trainer: Trainer, module: AdversarialTraining) -> tuple[Objective, Attack]:
        """Extends and treats a training that resumes, as before; returns what it began with."""
        if self._began is None or self._began[0] is not module:
            self._began = (module, module.objective, module.attack)
        self._extend(trainer, module)
        if self.steps:
            self._treat()
        return self._began[1:]

    def keep(self, trainer: Trainer, module: AdversarialTraining) -> None:
        """Keeps the present state as the healthy one."""
        live = {
            "network": module.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict()["state"],
            "objective": module.objective.state_dict(),
            "attack": module.memory,
            "averages": [callback.average.state_dict() for callback in callbacks_of(trainer, EMA)],
        }
        self.healthy = {"step": trainer.global_step, "repeated": self.repeated, **_on_host(live)}

    def roll_back(
        self, trainer: Trainer, module: AdversarialTraining
    ) -> tuple[dict[str, float], str]:
        """Restores the healthy state; returns a row of ``metrics.csv`` and a line for the user.

        Attack noise and data order continue, so that none comes twice.
        """
        assert self.healthy is not None
        step, healthy = trainer.global_step, self.healthy["step"]
        self.steps.append(step)
        _restore(self.healthy, trainer, module)
        row = {ROLLBACK: float(healthy)}
        line = f"step {step}: rollback restores step {healthy}, applies {self._treat()}"
        if self.rewinds:
            epochs = self._rewind(trainer, module, self.healthy)
            row[REPEATED] = float(self.repeated)
            line += f", extends training by {epochs} epoch{'' if epochs == 1 else 's'}"
        return row, line

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
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
        batches = trainer.num_training_batches
        if batches == float("inf"):
            must = "false for a loader that does not know how many batches an epoch has"
            raise ArgumentError("rewind", True, must)
        per_epoch = ceil(batches / trainer.accumulate_grad_batches)
        before = (self.repeated - int(healthy["repeated"])) * per_epoch
        lost = trainer.global_step - int(healthy["step"]) - before
        epochs = max(0, ceil(lost / per_epoch))
        self.repeated += epochs
        self.repeated_steps += epochs * per_epoch
        self._extend(trainer, module)
        for config in trainer.lr_scheduler_configs:
            scheduler = config.scheduler
            assert isinstance(scheduler, _CLOSED)
            scheduler.last_epoch -= epochs * per_epoch + 1
            scheduler.step()
        return epochs

    def _extend(self, trainer: Trainer, module: AdversarialTraining) -> None:
        """Gives the trainer the epochs, and the steps if it limits them, that it does not have."""
        epochs, steps = self._extended
        loop = trainer.fit_loop
        if loop.max_epochs is not None and loop.max_epochs >= 0:
            loop.max_epochs += self.repeated - epochs
        if loop.epoch_loop.max_steps >= 0:
            loop.epoch_loop.max_steps += self.repeated_steps - steps
        self._extended = (self.repeated, self.repeated_steps)
        module.repeated_epochs = self.repeated


def _restore(state: Snapshot, trainer: Trainer, module: AdversarialTraining) -> None:
    """Restores all but the learning rate."""
    module.load_state_dict(state["network"])
    optimizer = trainer.optimizers[0]
    groups = optimizer.state_dict()["param_groups"]
    # the optimizer keeps the tensors that it is given, and changes them
    optimizer.load_state_dict({"state": _on_host(state["optimizer"]), "param_groups": groups})
    module.objective.load_state_dict(_on_host(state["objective"]))
    module.memory = _on_host(state["attack"])
    for callback, average in zip(callbacks_of(trainer, EMA), state["averages"], strict=True):
        callback.average.load_state_dict(average)


def _on_host(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _on_host(item) for key, item in value.items()}
    return [_on_host(item) for item in value] if isinstance(value, list) else value
