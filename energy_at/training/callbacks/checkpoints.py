"""The last checkpoint, which a run resumes from, and the best one."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger

from energy_at.core.files import write_atomic
from energy_at.core.ranges import require_ranges
from energy_at.core.rules import ArgumentError
from energy_at.runs.checkpoints import read_tensors, with_digest
from energy_at.training.loggers import MetricsCSV


class CheckpointFiles(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, and are read only if no byte has changed."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_atomic(Path(path), with_digest(content))

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return read_tensors(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes one that a better one has replaced.

        Lightning takes the path from the checkpoint that a run resumes from, which may be a
        stranger's, and finds any file below a folder if ``..`` follows it.

        Raises:
            ValueError: if it leads out of its folder, or to another machine.
        """
        if ".." in Path(path).parts or "://" in str(path) or Path(path).suffix != ".ckpt":
            raise ValueError(
                f"{path} is to be removed as a checkpoint, but lies outside of this run: kept"
            )
        super().remove_checkpoint(path)


def _with_own_paths(callback: ModelCheckpoint, state: dict[str, Any]) -> dict[str, Any]:
    """A saved state with the only file that the callback writes in place of each that it names.

    Lightning would forget the best score in a folder of another name, and remove whatever file a
    stranger's checkpoint calls the best one.
    """
    own = str(Path(str(callback.dirpath)) / f"{callback.filename}.ckpt")
    names = ("best_model_path", "kth_best_model_path", "last_model_path")
    paths = {name: own if state[name] else "" for name in names}
    kept = dict.fromkeys(state["best_k_models"] and [own], state["best_model_score"])
    return {**state, **paths, "dirpath": str(callback.dirpath), "best_k_models": kept}


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt``, by a score on held-out images; the run folder may be moved and resumed.

    Args:
        monitor: ``val/acc/NAME``, of which the highest is best, or ``val/ce/NAME``, the lowest.
            NAME is ``clean`` or an attack of the validation, such as ``pgd10``; ``val_ema`` is
            the average of the weights.
    """

    def __init__(self, dirpath: str | Path, *, monitor: str) -> None:
        require_ranges("training.BestCheckpoint", monitor=monitor)
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor,
            mode="max" if "/acc/" in monitor else "min",
            save_top_k=1,
            enable_version_counter=False,
        )

    def require_measured(self, stages: Iterable[str], attacks: Iterable[str]) -> None:
        """Raises ``ValueError`` unless the validation measures the score."""
        stage, kind, name = str(self.monitor).split("/")
        if stage not in stages or name not in {"clean", *attacks}:
            known = [f"{one}/{kind}/{each}" for one in stages for each in ("clean", *attacks)]
            raise ArgumentError(
                "monitor", self.monitor, f"measured: choose from {', '.join(known)}"
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(_with_own_paths(self, state_dict))


class LastCheckpoint(ModelCheckpoint):
    """``last.ckpt``, replaced as a whole after every epoch, and ``every_n_steps`` within epochs."""

    def __init__(self, dirpath: str | Path, every_n_steps: int | None = None) -> None:
        require_ranges("training.LastCheckpoint", every_n_steps=every_n_steps)
        super().__init__(
            dirpath=dirpath,
            filename="last",
            every_n_epochs=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self.every_n_steps = every_n_steps

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(_with_own_paths(self, state_dict))

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Writes within the epoch, except after its last batch: the epoch's checkpoint follows.

        A run that resumed between the two would skip the validation.
        """
        every = self.every_n_steps
        if every and not trainer.is_last_batch and trainer.global_step % every == 0:
            trainer.save_checkpoint(Path(self.dirpath or ".") / "last.ckpt")


class Continuation(Callback):
    """Keeps the rows of ``metrics.csv`` and the id of the W&B run in every checkpoint.

    A resumed run drops the rows that were logged after the checkpoint, and logs them again.
    """

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV):
                checkpoint["metrics_rows"] = logger.count()
            elif isinstance(logger, WandbLogger) and logger.version is not None:
                checkpoint["wandb_id"] = str(logger.version)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV) and trainer.is_global_zero:
                logger.truncate(checkpoint["metrics_rows"])
