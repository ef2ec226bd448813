"""The forward passes of a training step, and which of them the attack has already computed."""

from collections.abc import Callable
from typing import Any

import torch
from lightning import Trainer

from energy_at.attacks import Attack, AttackResult, Place
from energy_at.core.distributed import Part
from energy_at.core.rng import global_draws
from energy_at.core.types import Images, Logits
from energy_at.data import EvalLoader, TrainLoader
from energy_at.models.modes import frozen_running_stats, no_graph
from energy_at.objectives import Trait


def needs_graph(attack: Attack, traits: Trait) -> bool:
    """Whether the loss needs the graph of the attack's first pass, if that pass is shared."""
    reusable = Trait.TRAINS_CLEAN in traits and attack.starts_clean
    return (reusable and Trait.FITS_CLEAN not in traits) or Trait.TRAINS_START in traits


def start_logits(
    net: Callable[[Images], Logits], found: AttackResult, traits: Trait, *, shared: bool
) -> Logits | None:
    """Logits (n, classes) at the attack's start, or ``None`` if no term reads them.

    Args:
        net: The network that is trained.
        found: What the attack has computed.
        traits: Of the objective.
        shared: Whether the passes of the attack are those of the training.
    """
    if Trait.READS_START not in traits:
        return None
    if shared or found.x_start is None:
        return found.start_logits
    with frozen_running_stats(net):
        return net(found.x_start)


def clean_logits(
    net: Callable[[Images], Logits],
    x: Images,
    found: AttackResult,
    traits: Trait,
    *,
    shared: bool,
    observed: bool,
) -> Logits | None:
    """Logits (n, classes) of clean images, or ``None`` if nothing reads them.

    Args:
        net: The network that is trained.
        x: Clean images.
        found: What the attack has computed.
        traits: Of the objective.
        shared: Whether the passes of the attack are those of the training.
        observed: Whether a callback reads them.
    """
    if Trait.FITS_CLEAN in traits:
        return net(x)
    trains = Trait.TRAINS_CLEAN in traits
    if not (trains or Trait.READS_CLEAN in traits or observed):
        return None
    known = found.clean_logits if shared else None
    if known is not None and (known.requires_grad or not trains):
        return known
    # the running statistics must be those of the base method, which a forward pass of
    # regularizers or callbacks in training mode would change
    with frozen_running_stats(net):
        if trains:
            return net(x)
        with no_graph(), global_draws(x.device):
            return net(x)


def part_of(trainer: Trainer | None, own: int, batch: int) -> Part:
    """Which part of a batch of all processes the ``own`` images of this process are."""
    if trainer is None or trainer.world_size == 1:
        return Part(own)
    loader = trainer.train_dataloader if trainer.training else trainer.val_dataloaders
    if isinstance(loader, TrainLoader | EvalLoader):
        return loader.part(batch)
    # other loaders give each process a batch
    return Part(own * trainer.world_size, trainer.global_rank, trainer.world_size)


def place_of(attack: Attack, loader: Any, x: Images, epochs_done: float, batch: int) -> Place:
    """Where in the training a batch is, with the numbers of its images if the attack reads them.

    Raises:
        ValueError: if it does, and the loader does not know them.
    """
    images, total = torch.arange(len(x), device=x.device), len(x)
    if loader is not None and attack.reads_place:
        if not isinstance(loader, TrainLoader):
            raise ValueError(
                f"{type(attack).__name__} keeps what it found for each training image: "
                "its batches must come from energy_at.data.TrainLoader"
            )
        images, total = loader.images_of(batch), len(loader.images)
    return Place(images, total, epochs_done, batch)
