"""Compiles the network of a training."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from energy_at.models.compile import Switch, begin_step, compile_net, require_compiler
from energy_at.objectives import Objective, Trait
from energy_at.training.module import AdversarialTraining


class CompiledNet(Callback):
    """Compiles the bare network for the steps of training and validation.

    The last batch of an epoch, if smaller than the others, runs uncompiled: its own graph would
    take longer to compile than it saves. So do averages of the weights, and callbacks that run the
    network between steps.

    Args:
        mode: Of ``torch.compile``; see ``energy_at.models.compile.COMPILATIONS``.
    """

    def __init__(self, mode: str = "default") -> None:
        self.mode = mode
        self._switch: Switch | None = None
        self._sizes = {"train": 0, "val": 0}

    def require_fitting(self, trainer: Trainer, objective: Objective) -> None:
        """Checks that the training can be compiled.

        Raises:
            ValueError: if it cannot, with the remedy.
        """
        if Trait.DIFFERENTIATES_TWICE in objective.traits:
            twice = [
                name
                for name, weighted in objective.terms.items()
                if Trait.DIFFERENTIATES_TWICE in weighted.term.traits
            ]
            raise ValueError(
                f"training.compile={self.mode} has no second derivatives, which {twice[0]} takes: "
                "training.compile=null, or another regularizer"
            )
        if trainer.world_size > 1:
            raise ValueError(
                f"training.compile={self.mode} is for one process, since batch norm is shared by "
                "all: training.compile=null, or trainer.devices=1"
            )
        require_compiler(self.mode)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepares the compilation; each graph is compiled when it is first needed."""
        if not isinstance(pl_module, AdversarialTraining):
            raise TypeError(f"CompiledNet needs an AdversarialTraining, got {type(pl_module)}")
        self.require_fitting(trainer, pl_module.objective)
        compile_net(pl_module.net, self.mode)
        self._switch = Switch(pl_module.net)
        self._switch.turn(False)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._begin("train", len(batch[0]))

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._end()

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._begin("val", len(batch[0]))

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._end()

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        """Restores the uncompiled network."""
        self._end()

    def _begin(self, stage: str, size: int) -> None:
        self._sizes[stage] = max(size, self._sizes[stage])
        if self._switch is not None and size == self._sizes[stage]:
            begin_step()
            self._switch.turn(True)

    def _end(self) -> None:
        if self._switch is not None:
            self._switch.turn(False)
