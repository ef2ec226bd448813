"""The state of a training in a checkpoint, checked before a resumed run changes any file."""

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import Callback, Trainer
from packaging.version import Version
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from energy_at.runs.checkpoints import read_training_state
from energy_at.training.callbacks import callbacks_of
from energy_at.training.callbacks.networks import EMA
from energy_at.training.loggers import MetricsCSV
from energy_at.training.module import AdversarialTraining
from energy_at.training.sentinel import Sentinel

_POSITION = {"epoch": 0, "batch": 0}


class _Row(NamedTuple):
    """A list of N numbers, or ``None`` if it is optional."""

    numbers: int
    optional: bool = False


def require_restorable(
    checkpoint: Path,
    trainer: Trainer,
    module: AdversarialTraining,
    optimizer: Optimizer,
    schedulers: Sequence[LRScheduler],
    images: Sequence[int],
) -> None:
    """Checks that a training takes the state in a checkpoint, which Lightning restores later.

    Args:
        checkpoint: Its file.
        trainer: With its callbacks; they, its loop and the module load their states here.
        module: The training.
        optimizer: One like that of the training, which is changed.
        schedulers: Those of the optimizer.
        images: Number, channels, height and width of the training images.

    Raises:
        ValueError: if a part is missing, or of another kind or shape.
    """
    saved, sentinels = read_training_state(checkpoint), callbacks_of(trainer, Sentinel)
    own = _own_state(trainer, module, schedulers)
    shapes = module.attack.memory_shapes(images[0], images[1:])
    own["attack"] = {
        name: torch.empty(tuple(shape), device="meta") for name, shape in shapes.items()
    }
    try:
        averages = len(callbacks_of(trainer, EMA))  # and a training may have had no sentinel before
        healthy = _add_rows(own, saved, averages) if sentinels and "sentinel" in saved else None
        if damage := _difference(saved, own) or _of_memory(saved["attack"]):
            raise TypeError(damage)
        if len(saved["lr_schedulers"]) != len(schedulers):
            raise TypeError(f"{len(saved['lr_schedulers'])} lr_schedulers, not {len(schedulers)}")
        Version(saved["pytorch-lightning_version"])
        module.on_load_checkpoint(saved)
        for callback in callbacks_of(trainer, Callback):
            if state := saved["callbacks"].get(callback.state_key):
                callback.load_state_dict(state)
        for sentinel in sentinels:
            sentinel.on_load_checkpoint(trainer, module, saved)
        trainer.fit_loop.load_state_dict(saved["loops"]["fit_loop"])
        (of_optimizer,) = saved["optimizer_states"]
        if healthy is not None:
            _load(optimizer, {**of_optimizer, "state": healthy["optimizer"]})
        _load(optimizer, of_optimizer)
        for scheduler, state in zip(schedulers, saved["lr_schedulers"], strict=True):
            scheduler.load_state_dict(state)
        saved["ImageData"]
        if any(isinstance(logger, MetricsCSV) for logger in trainer.loggers):
            saved["metrics_rows"]
    except (LookupError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        missing = "it lacks " if isinstance(error, KeyError) else ""
        why = missing + " ".join(str(error).split())[:200]
        raise ValueError(f"checkpoint {checkpoint} is damaged ({why})") from error


def _own_state(
    trainer: Trainer, module: AdversarialTraining, schedulers: Sequence[LRScheduler]
) -> dict[str, Any]:
    """The state of a training that has not begun, as a checkpoint would hold it."""
    callbacks = callbacks_of(trainer, Callback)
    own: dict[str, Any] = {
        "loops": {"fit_loop": trainer.fit_loop.state_dict()},
        "callbacks": {callback.state_key: callback.state_dict() for callback in callbacks},
        "lr_schedulers": [scheduler.state_dict() for scheduler in schedulers],
        "objective": module.objective.state_dict(),
        "ImageData": _POSITION,
        "current_model_state": module.state_dict(),
        "averaging_state": {"n_averaged": torch.tensor(0)},
    }
    own["loops"]["fit_loop"]["state_dict"]["combined_loader"] = [_POSITION]
    for sentinel in callbacks_of(trainer, Sentinel):
        sentinel.on_save_checkpoint(trainer, module, own)
    return own


def _of_memory(attack: Mapping[str, Any]) -> str | None:
    tensors = all(isinstance(value, Tensor) for value in attack.values())
    return None if tensors else "attack holds what is no tensor"


def _add_rows(own: dict[str, Any], saved: dict[str, Any], averages: int) -> Any:
    """Gives the state of a sentinel what one that has begun holds; returns the healthy state."""
    detector, rollback = (own["sentinel"][name] for name in ("detector", "rollback"))
    healthy = saved["sentinel"]["rollback"]["healthy"]
    detector["co"] |= {"steps": [_Row(3)], "confirmed": _Row(2, True), "pert_aligns": [0.0]}
    detector["ro"]["steps"] = [_Row(2)]
    for mean in ("accuracy", "loss"):
        detector["ro"][mean]["values"] = [0.0]
    rollback["steps"] = [0]
    if healthy is None:
        return None
    network = own["current_model_state"]
    average = {f"module.{name}": value for name, value in network.items()}
    rollback["healthy"] = {
        "step": 0,
        "repeated": 0,
        "network": network,
        "optimizer": {},
        "attack": healthy["attack"] and own["attack"],  # empty before the first batch
        "objective": own["objective"],
        "averages": [{"n_averaged": torch.tensor(0), **average}],
    }
    if missing := sorted(rollback["healthy"].keys() - healthy.keys()):
        raise KeyError(missing[0])
    if len(healthy["averages"]) != averages:
        raise TypeError(f"{len(healthy['averages'])} averages of the healthy state, not {averages}")
    return healthy


def _difference(saved: Any, own: Any, place: str = "") -> str | None:
    """Where a state is of another kind than that of a training that has not begun.

    Such a training has no score yet and no steps: what it leaves open may be anything but text.
    """
    if isinstance(own, _Row):
        row = isinstance(saved, list) and all(isinstance(value, Real) for value in saved)
        fits = (row and len(saved) == own.numbers) or (own.optional and saved is None)
        return None if fits else f"{place} is no list of {own.numbers} numbers"
    if isinstance(own, Mapping) and isinstance(saved, Mapping):
        needed = own if own is _POSITION and saved else [k for k in own if torch.is_tensor(own[k])]
        lost = [key for key in needed if key not in saved]
        strange = (
            [key for key in saved if key not in own] if needed and own is not _POSITION else []
        )
        names = {k: f"{place}.{str(k).partition('{')[0]}".lstrip(".") for k in own}
        parts = ((saved[k], own[k], name) for k, name in names.items() if k in saved)
        if lost or strange:
            return f"{place} has no {lost[0]}" if lost else f"{place} has an unknown {strange[0]}"
        return next(filter(None, (_difference(*part) for part in parts)), None)
    if isinstance(own, list) and isinstance(saved, list):
        each = ((value, own[0], f"{place}[{i}]") for i, value in enumerate(saved) if own)
        return next(filter(None, (_difference(*part) for part in each)), None)
    if isinstance(own, Tensor) and isinstance(saved, Tensor):
        same = (saved.shape, saved.is_complex()) == (own.shape, own.is_complex())
        return None if same else f"{place} is a tensor of another shape or type"
    kinds = (Mapping, list, Tensor, bool, str, Real)
    kind = next((kind for kind in kinds if isinstance(own, kind)), None)
    fits = not isinstance(saved, str) if kind is None else isinstance(saved, kind)
    if kind is Real and isinstance(saved, bool):
        fits = False
    return None if fits else f"{place} is {type(saved).__name__}, not {type(own).__name__}"


def _load(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Raises ``TypeError`` for a state of another shape or type than its weights.

    No step checks the shape, and the optimizer takes the real part of what is complex.
    """
    for values in state["state"].values():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.is_complex():
                raise TypeError(f"{name} of the optimizer is complex")
    optimizer.load_state_dict(state)
    for weights, own in optimizer.state.items():
        for name, value in own.items():
            if isinstance(value, Tensor) and value.shape not in (weights.shape, ()):
                raise TypeError(f"{name} of the optimizer is of another shape than its weights")
