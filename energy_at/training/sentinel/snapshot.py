"""The state of a training in memory, to come back to without leaving the training."""

from collections.abc import Mapping
from typing import Any

from lightning import Trainer
from torch import Tensor

from energy_at.training.callbacks.ema import EMA
from energy_at.training.module import AdversarialTraining

Snapshot = dict[str, Any]  # tensors and plain values, as a checkpoint may hold them


def taken(trainer: Trainer, module: AdversarialTraining) -> Snapshot:
    """Network with its running statistics, optimizer, objective and average, on the host.

    Attack noise and data order are functions of the position in the training, so they are no part
    of it: after a return they go on, and no noise comes twice.
    """
    averages = [callback.averaged() for callback in _averaging(trainer)]
    live = {
        "network": module.state_dict(),
        "optimizer": trainer.optimizers[0].state_dict()["state"],
        "objective": module.objective.state_dict(),
        "averages": averages,
    }
    return {"step": trainer.global_step, **_copied(live)}


def restore(snapshot: Mapping[str, Any], trainer: Trainer, module: AdversarialTraining) -> None:
    """Goes on from it, with the learning rate that the schedule has now."""
    module.load_state_dict(snapshot["network"])
    optimizer = trainer.optimizers[0]
    groups = optimizer.state_dict()["param_groups"]
    # the optimizer keeps the tensors that it is given, and changes them
    optimizer.load_state_dict({"state": _copied(snapshot["optimizer"]), "param_groups": groups})
    module.objective.load_state_dict(_copied(snapshot["objective"]))
    for callback, average in zip(_averaging(trainer), snapshot["averages"], strict=True):
        callback.restore(average)


def _averaging(trainer: Trainer) -> list[EMA]:
    return [callback for callback in trainer.callbacks if isinstance(callback, EMA)]  # type: ignore[attr-defined]


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
