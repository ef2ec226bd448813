"""The checkpoint that a run goes on from, and its best one."""

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.types import STEP_OUTPUT


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt``, by a score on held-out images, wherever the run folder has been moved to."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with the best score. Lightning would forget it in a folder of another name."""
        old, new = state_dict["dirpath"], str(self.dirpath)
        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {key: state_dict[key].replace(old, new, 1) for key in paths}
        kept = {path.replace(old, new, 1): v for path, v in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **moved, "dirpath": new, "best_k_models": kept})


class LastCheckpoint(ModelCheckpoint):
    """``last.ckpt``, written whole or not at all: after every epoch, and every so many steps.

    Args:
        dirpath: Folder of the checkpoint.
        every_n_steps: Write it within epochs too, after every so many optimizer steps.
    """

    def __init__(self, dirpath: str | Path, every_n_steps: int | None = None) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"callbacks.last.every_n_steps must be >= 1, got {every_n_steps}")
        super().__init__(
            dirpath=dirpath,
            filename="last",
            every_n_epochs=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Writes within the epoch. After its last batch the epoch's own checkpoint follows.

        Lightning would not make up for the validation in between.
        """
        if not self.every_n_steps or trainer.is_last_batch:
            return
        if trainer.global_step % self.every_n_steps == 0:
            trainer.save_checkpoint(Path(self.dirpath or ".") / "last.ckpt")
