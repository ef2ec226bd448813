"""The schedule of a training goes back where its network went back, and the training is longer."""

from math import ceil

from lightning import Trainer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from energy_at.training.module import AdversarialTraining

_CLOSED = (LambdaLR, OneCycleLR)  # their learning rate is a function of the step alone


def require_rewindable(trainer: Trainer) -> None:
    """Refuses a schedule whose learning rate depends on the steps before.

    Raises:
        ValueError: with the cure.
    """
    for config in trainer.lr_scheduler_configs:
        if not isinstance(config.scheduler, _CLOSED):
            name = type(config.scheduler).__name__
            raise ValueError(
                f"callbacks.sentinel.rewind=true takes a schedule back, and a {name} knows no way "
                "back: choose rewind=false, or a LambdaLR or OneCycleLR"
            )


def steps_per_epoch(trainer: Trainer) -> int:
    """Optimizer steps of an epoch, which must be known.

    Raises:
        ValueError: if the loader does not say how many batches it has.
    """
    batches = trainer.num_training_batches
    if batches == float("inf"):
        raise ValueError(
            "callbacks.sentinel.rewind=true repeats whole epochs, and the loader does not say how "
            "many batches one has: choose rewind=false"
        )
    return ceil(batches / trainer.accumulate_grad_batches)


def lengthen(trainer: Trainer, epochs: int, steps: int) -> None:
    """Has the training last so many epochs more, and as many steps, where these are limited."""
    loop = trainer.fit_loop
    if loop.max_epochs is not None and loop.max_epochs >= 0:
        loop.max_epochs += epochs
    if loop.epoch_loop.max_steps >= 0:
        loop.epoch_loop.max_steps += steps


def rewind(trainer: Trainer, module: AdversarialTraining, epochs: int) -> int:
    """Repeats the part of the schedule that the last epochs were trained with.

    Steps and epochs count on, and with them noise and the order of images: none comes twice.

    Returns:
        The optimizer steps of that part.
    """
    steps = epochs * steps_per_epoch(trainer)
    module.repeated_epochs += epochs
    lengthen(trainer, epochs, steps)
    for config in trainer.lr_scheduler_configs:
        scheduler = config.scheduler
        assert isinstance(scheduler, _CLOSED)
        scheduler.last_epoch -= steps + 1
        scheduler.step()
    return steps
