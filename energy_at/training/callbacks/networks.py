"""The network of a training in other forms: its weights averaged, its code compiled."""

from collections.abc import Callable
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging

from energy_at.core.ranges import require_ranges
from energy_at.core.rules import ArgumentError
from energy_at.models.compile import compile_net, require_compiler, switch_of
from energy_at.objectives import Objective, Trait
from energy_at.objectives.objective import traits_of
from energy_at.training.module import AdversarialTraining


class EMA(EMAWeightAveraging):
    """Exponential moving average of the weights, validated alongside the live weights.

    Lightning validates the average instead of the live network, whose collapse would then show
    late or never. Here ``val/...`` is the live network and ``val_ema/...`` the average. Checkpoints
    hold the average as ``state_dict``, as those of Lightning's callback do.

    Args:
        decay: Share of the average that a step keeps.
        options: Of Lightning's callback.
    """

    def __init__(self, *, decay: float = 0.999, **options: Any) -> None:
        require_ranges("training.EMA", decay=decay)
        super().__init__(decay=decay, **options)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Creates the average and adds it to the validation."""
        # Lightning moves the network to its device after this
        self._device = self._device or trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and isinstance(pl_module, AdversarialTraining):
            pl_module.validated_nets["val_ema"] = lambda: self.average.module.net

    # Lightning would exchange the live network for the average
    on_validation_epoch_start = Callback.on_validation_epoch_start
    on_validation_epoch_end = Callback.on_validation_epoch_end

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends with the average: a training resumed at its end runs no ``on_train_end``."""
        self._copy_average_to_current(pl_module)

    @property
    def average(self) -> Any:
        """The averaged training module, wrapped; training continues to change its tensors."""
        assert self._average_model is not None
        return self._average_model


class CompiledNet(Callback):
    """Compiles the bare network for the steps of training and validation.

    The last batch of an epoch, if smaller than the others, runs uncompiled: its own graph would
    take longer to compile than it saves. So do averages of the weights, and callbacks that run the
    network between steps.

    Args:
        mode: Of ``torch.compile``; see ``energy_at.core.ranges.Compilation``.
    """

    def __init__(self, mode: str = "default") -> None:
        self.mode = mode
        self._turn: Callable[[bool], None] | None = None
        self._sizes = {"train": 0, "val": 0}

    def require_fitting(self, trainer: Trainer, objective: Objective) -> None:
        """Raises ``ValueError``, with the remedy, if the training cannot be compiled."""
        for name, weighted in objective.terms.items():
            if Trait.DIFFERENTIATES_TWICE in traits_of(weighted.term):
                must = f"null for {name}: a compiled network has no second derivatives"
                raise ArgumentError("mode", self.mode, must)
        if trainer.world_size > 1:
            must = "null for several processes, since batch norm is shared by all"
            raise ArgumentError("mode", self.mode, must)
        require_compiler(self.mode)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepares the compilation; each graph is compiled when it is first needed."""
        if not isinstance(pl_module, AdversarialTraining):
            raise TypeError(f"CompiledNet needs an AdversarialTraining, got {type(pl_module)}")
        self.require_fitting(trainer, pl_module.objective)
        compile_net(pl_module.net, self.mode)
        self._turn = switch_of(pl_module.net)
        self._turn(False)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        stage = "train" if trainer.training else "val"
        size = len(batch[0])
        self._sizes[stage] = max(size, self._sizes[stage])
        if self._turn is not None and size == self._sizes[stage]:
            torch.compiler.cudagraph_mark_step_begin()  # outputs may be overwritten
            self._turn(True)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        if self._turn is not None:
            self._turn(False)

    on_validation_batch_start = on_train_batch_start
    on_validation_batch_end = on_exception = on_train_batch_end
