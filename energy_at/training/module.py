"""Adversarial training: attack the batch, forward the pair, minimise the objective."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal, get_args

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.flop_counter import FlopCounterMode

from energy_at.attacks import Attack, AttackResult
from energy_at.core.distributed import Part
from energy_at.core.rng import Noise, mixed
from energy_at.core.rules import number, one_of, require
from energy_at.core.types import Images, Labels, Logits
from energy_at.data import EvalLoader, TrainLoader
from energy_at.models.modes import eval_mode, frozen_running_stats, full_precision
from energy_at.objectives import Objective, Vicinity, fits_adv_alone
from energy_at.training.forward import Passes, logits, validation_metrics
from energy_at.training.optim import WeightPerturbation, sgd

OptimizerFactory = Callable[[nn.Module], Optimizer]
ScheduleFactory = Callable[[Optimizer, int], LRScheduler]  # given the number of all steps
BNMode = Literal["batch", "eval"]


class AdversarialTraining(LightningModule):
    """Trains a classifier on pairs of clean and adversarial images.

    Every step returns its detached ``LogitPair`` as ``"pair"``, its lowest and highest pixel as
    ``"pixels"`` and, if requested and free, the attack's gradient at its start and ``x*``, whose
    ``.grad`` the backward pass fills, as ``"gradients"``, for callbacks that measure them.

    Args:
        net: Classifier of images in [0, 1].
        attack: Training attack.
        objective: Loss and regularizers.
        val_attacks: Attacks of the validation; ``"pgd"`` gives ``val/acc/pgd``.
        optimizer: Factory.
        schedule: Factory of the learning-rate schedule, which is stepped after every batch.
        bn_mode: Mode of batch norm in the training attack: statistics of the ``"batch"`` (fast and
            standard AT) or running ones, ``"eval"`` (TRADES). With ``"batch"`` the running
            statistics are updated twice a step, with the attack's first point and with ``x*``, as
            in the published code of fast AT; with ``"eval"``, with ``x*`` only.
        eps_warmup_epochs: Epochs over which the radius of the training attack rises from 0.
        awp: Perturbs the weights before every step. It ascends the terms that use the pair; probes
            among the regularizers are evaluated at the perturbed weights.
        seed: Of the noise of the attacks, together with epoch and batch.
        reuse: Whether clean logits and gradients are taken from the attack's own passes if it
            computes them; otherwise each is computed again, to the same values.

    Raises:
        ValueError: if a value is out of its range.
    """

    def __init__(
        self,
        net: nn.Module,
        attack: Attack,
        objective: Objective,
        *,
        val_attacks: Mapping[str, Attack],
        optimizer: OptimizerFactory = sgd,
        schedule: ScheduleFactory | None = None,
        bn_mode: BNMode = "batch",
        eps_warmup_epochs: float = 0.0,
        awp: WeightPerturbation | None = None,
        seed: int = 0,
        reuse: bool = True,
    ) -> None:
        super().__init__()
        require("bn_mode", bn_mode, one_of(*get_args(BNMode)))
        require("eps_warmup_epochs", eps_warmup_epochs, number(0))
        self.net = net
        self.attack = attack
        self.objective = objective
        self.val_attacks = dict(val_attacks)
        self.optimizer = optimizer
        self.schedule = schedule
        self.bn_mode = bn_mode
        self.eps_warmup_epochs = eps_warmup_epochs
        self.awp = awp
        self.seed = seed
        self.reuse = reuse
        self.repeated_epochs = 0  # by rollbacks: warm-ups do not count them
        self.observes_clean = False  # set by a callback that needs clean logits of every step
        self.observes_gradients = False  # set by one that needs input gradients, where free
        self.validated_nets: dict[str, Callable[[], nn.Module]] = {"val": lambda: self.net}

    def forward(self, x: Images) -> Logits:
        return logits(self.net, x)

    def on_train_start(self) -> None:
        loader = self.trainer.train_dataloader
        if isinstance(loader, TrainLoader):
            require_batches(self.net, len(loader.images), loader.batch_size)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        # Lightning takes the mean of the processes' gradients, and these are parts of a sum
        world = self.trainer.world_size
        super().backward(world * loss if world > 1 else loss, *args, **kwargs)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Mapping[str, Any]:
        x, y = batch
        if batch_idx == 0:
            require_pixels(float(x.min()), float(x.max()), "training")
        part = self._part(len(x), batch_idx)
        require_batches(self.net, part.whole, part.whole)
        if self.awp is not None:
            self.awp.restore()  # if the last step failed
        epoch = self._epochs_done(batch_idx)
        noise = part.noise(self._noise(x.device, self.current_epoch, batch_idx))
        passes = self._passes()
        found = self._run_attack(x, y, batch_idx, noise)
        if self.awp is not None and self._perturbs_weights():
            with frozen_running_stats(self.net):
                pair = passes.pair(x, y, found).gathered(part)
            self.awp.ascend(self.net, self.objective(pair, epoch).total)
            del pair  # and what is left of its graph
        aligns = self.observes_gradients and passes.shared and fits_adv_alone(self.objective)
        gradients = {}
        if aligns and found.start_grad is not None:
            gradients["gradients"] = (found.start_grad, found.x_adv.requires_grad_())
        pair = passes.pair(x, y, found).gathered(part)
        clean_grad = found.clean_grad if passes.shared else None
        vicinity = Vicinity(self.net, x, y, noise, clean_grad, part)
        losses = self.objective(pair, epoch, vicinity)
        return {
            "loss": losses.total,
            "parts": losses.parts,
            "pair": pair.detach(),
            "pixels": torch.stack([x.min(), x.max()]),
            **gradients,
        }

    def on_after_backward(self) -> None:
        """Restores perturbed weights before the step of the optimizer."""
        if self.awp is not None:
            self.awp.restore()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["objective"] = self.objective.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.objective.load_state_dict(checkpoint["objective"])

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Accuracies and delta energies on held-out images, in fp32."""
        x, y = batch
        require_pixels(float(x.min()), float(x.max()), "validation")
        part = self._part(len(x), batch_idx)

        def noise() -> Noise:
            return part.noise(self._noise(x.device, 0, batch_idx))

        for prefix, net in self.validated_nets.items():
            with full_precision(x.device.type), eval_mode(net()):
                values = validation_metrics(net(), self.val_attacks, x, y, part, noise)
            self.log_dict(
                {f"{prefix}/{name}": value for name, value in values.items()}
                # else Lightning counts one step less
                | {"step": float(self.global_step), "epoch": float(self.current_epoch)},
                on_epoch=True,
                on_step=False,
                batch_size=part.whole,
                sync_dist=True,  # all processes have the values of the whole batch
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.net)
        if self.schedule is None:
            return optimizer
        total = self.trainer.estimated_stepping_batches
        if total == float("inf"):
            raise ValueError("a learning-rate schedule needs trainer.max_epochs or max_steps")
        scheduler = self.schedule(optimizer, int(total))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _run_attack(self, x: Images, y: Labels, batch_idx: int, noise: Noise) -> AttackResult:
        attack = self._attack_at(batch_idx)
        with nullcontext() if self.bn_mode == "batch" else eval_mode(self.net):
            return attack(
                self.net,
                x,
                y,
                keep_graph=self._passes().keeps_graph(attack),
                track_stats=self.bn_mode == "batch",
                generator=noise,
            )

    def _passes(self) -> Passes:
        """Shared with the attack if it runs the network in the same mode at the same weights."""
        shared = self.reuse and self.bn_mode == "batch" and not self._perturbs_weights()
        return Passes(self.net, self.objective.traits, shared, self.observes_clean)

    def _perturbs_weights(self) -> bool:
        return self.awp is not None and self._epoch >= self.awp.warmup_epochs

    def _attack_at(self, batch_idx: int) -> Attack:
        if not self.eps_warmup_epochs:
            return self.attack
        # a radius of 0 is invalid: the warm-up counts the present step
        done = self._epochs_done(batch_idx + 1) / self.eps_warmup_epochs
        return self.attack.scaled(done) if done < 1 else self.attack

    def _part(self, own: int, batch_idx: int) -> Part:
        if self._trainer is None or self._trainer.world_size == 1:
            return Part(own)
        trainer = self.trainer
        loader = trainer.train_dataloader if trainer.training else trainer.val_dataloaders
        if isinstance(loader, TrainLoader | EvalLoader):
            return loader.part(batch_idx)
        # other loaders give each process a batch
        return Part(own * trainer.world_size, self.global_rank, trainer.world_size)

    def _noise(self, device: torch.device, epoch: int, batch_idx: int) -> torch.Generator:
        # a function of the position: a resumed run draws the same noise as an uninterrupted one
        return torch.Generator(device).manual_seed(mixed(self.seed, 0, epoch, batch_idx))

    def _epochs_done(self, batches: int) -> float:
        per_epoch = float(self._trainer.num_training_batches) if self._trainer else 1.0
        return self._epoch + batches / per_epoch

    @property
    def _epoch(self) -> int:
        """Epoch of everything that changes over a training, such as warm-ups."""
        return max(self.current_epoch - self.repeated_epochs, 0)


def forward_equivalents(module: AdversarialTraining, x: Images, y: Labels) -> float:
    """Cost of one optimizer step on a batch, in forward passes of the batch.

    In floating point operations: a backward pass for weights and inputs is about 2. Modifies the
    module.
    """
    with FlopCounterMode(display=False) as step:
        module.training_step((x, y), 0)["loss"].backward()
        module.on_after_backward()
    with FlopCounterMode(display=False) as forward, torch.no_grad(), eval_mode(module.net):
        module.net(x)
    return float(step.get_total_flops() / forward.get_total_flops())


def require_batches(net: nn.Module, images: int, batch_size: int) -> None:
    """Checks that the last batch of an epoch is large enough for batch norm.

    Raises:
        ValueError: if it has one image.
    """
    last = min(images % batch_size or batch_size, images)
    if last == 1 and any(isinstance(module, _BatchNorm) for module in net.modules()):
        raise ValueError(
            "a training batch of one image cannot pass batch norm: choose a dataset.batch_size "
            "that leaves at least two images in the last batch"
        )


def require_pixels(low: float, high: float, stage: str) -> None:
    """Checks the range of images.

    Raises:
        ValueError: if the lowest or the highest pixel is not in [0, 1].
    """
    if not (low >= 0 and high <= 1):
        remedy = (
            "divide bytes by 255"
            if low >= 0 and high > 2
            else "normalization is the network's first layer, not the data's"
        )
        raise ValueError(f"{stage} images must lie in [0, 1], got [{low:g}, {high:g}]: {remedy}")
