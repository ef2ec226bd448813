"""Adversarial training: attack the batch, forward the pair, minimise the objective."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from lightning import Callback, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from energy_at.attacks import Attack, AttackOptions, AttackResult
from energy_at.attacks.base import Memory
from energy_at.core.distributed import Part, summed
from energy_at.core.ranges import BNMode
from energy_at.core.rng import ImageNoise, Noise, global_draws, mixed
from energy_at.core.types import Images, Labels, Logits, Targets, labels_of
from energy_at.energy.pair import LogitPair
from energy_at.models.modes import eval_mode, frozen_running_stats, full_precision, require_tensor
from energy_at.objectives import LabelSmoothing, Objective, Vicinity, fits_adv_alone, pert_align
from energy_at.objectives.linearity import input_gradient
from energy_at.training.forward import clean_logits, needs_graph, part_of, place_of, start_logits
from energy_at.training.guard import FiniteGuard
from energy_at.training.optim import (
    OptimizerFactory,
    ScheduleFactory,
    WeightPerturbation,
    optimizer_of,
    sgd,
    stepped,
)
from energy_at.training.requirements import (
    images_and_labels,
    require_arguments,
    require_batch,
    require_first_batch,
    require_fit,
    require_held_out,
    require_known_length,
    require_steps,
    require_trainer,
)
from energy_at.training.validation import Percentile, validation_metrics


class AdversarialTraining(LightningModule):
    """Trains a classifier on pairs of clean and adversarial images.

    Every step returns its detached ``LogitPair`` as ``"pair"``, what ``FiniteGuard`` checks as
    ``"extremes"`` and, if requested and free, the attack's gradient at its start and ``x*``, whose
    ``.grad`` the backward pass fills, as ``"gradients"``, for callbacks that measure them.

    Args:
        net: Classifier of images in [0, 1].
        attack: Training attack.
        objective: Loss and regularizers.
        val_attacks: Attacks of the validation; ``"pgd10"`` gives ``val/acc/pgd10``.
        optimizer: Factory.
        schedule: Factory of the learning-rate schedule, which is stepped after every batch.
        bn_mode: Mode of batch norm in the training attack: statistics of the ``"batch"`` (fast and
            standard AT) or running ones, ``"eval"`` (TRADES). With ``"batch"`` the running
            statistics are updated twice a step, with the attack's first point and with ``x*``, as
            in the published code of fast AT; with ``"eval"``, with ``x*`` only.
        eps_warmup_epochs: Epochs over which the radius of the training attack rises from 0.
        smoothing: Smooths the labels that cross-entropies of the loss are trained with, and those
            that the training attack raises.
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
        smoothing: LabelSmoothing | None = None,
        awp: WeightPerturbation | None = None,
        seed: int = 0,
        reuse: bool = True,
    ) -> None:
        super().__init__()
        self.net = net
        self.attack = attack
        self.objective = objective
        self.val_attacks = val_attacks
        self.optimizer = optimizer
        self.schedule = schedule
        self.bn_mode = bn_mode
        self.eps_warmup_epochs = eps_warmup_epochs
        self.smoothing = smoothing
        self.awp = awp
        self.seed = seed
        self.reuse = reuse
        require_arguments(self)
        self.memory: Memory = {}  # of the attack
        self.repeated_epochs = 0  # by rollbacks: warm-ups do not count them
        self._classes = 0  # logits of an image, once they were checked
        self._knows_traits = False  # whether the terms of the objective were tried
        self.observes_clean = False  # set by a callback that needs clean logits of every step
        self.observes_gradients = False  # set by one that needs input gradients, where free
        self.validated_nets: dict[str, Callable[[], nn.Module]] = {"val": lambda: self.net}
        self._percentiles: dict[str, Percentile] = {}  # of the validation
        self._validated = 0  # images of this validation so far
        self._to_align: tuple[Images, Images, Part] | None = None  # until the backward pass

    def forward(self, x: Images) -> Logits:
        """Logits of a batch, in the precision of the images, under autocast too."""
        output: Logits = self.net(x)
        require_tensor(output)
        return output.to(x.dtype)

    def configure_callbacks(self) -> list[Callback]:
        """A guard, unless the trainer has one: no training continues with NaN."""
        has_guard = any(isinstance(one, FiniteGuard) for one in self.trainer.callbacks)  # type: ignore[attr-defined]
        return [] if has_guard else [FiniteGuard()]

    def on_fit_start(self) -> None:
        require_fit(self.trainer, self.net, self.attack, self.objective)

    def on_fit_end(self) -> None:
        require_steps(self.trainer)

    def on_train_batch_start(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Checks images, labels and logits before the first step."""
        if not self._classes:
            x, y = self._images_and_labels(batch)
            require_known_length(self.trainer, self.eps_warmup_epochs, self.objective)
            parts = self.smoothing, self.attack
            self._classes = require_first_batch(self.net, x, y, self.trainer, *parts)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        # Lightning takes the mean of the processes' gradients, and these are parts of a sum
        world = self.trainer.world_size
        super().backward(world * loss if world > 1 else loss, *args, **kwargs)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Mapping[str, Any]:
        x, y = self._images_and_labels(batch)
        require_batch(self.net, x, self._trainer)
        # dropout: a function of the position, as all noise; each process draws its own
        seed = mixed(self.seed, 2, self.current_epoch, batch_idx, self.global_rank)
        known = labels_of(y, self._classes) if self._classes else nullcontext()
        with known, global_draws(x.device, seed):
            return self._step(x, y, batch_idx)

    def _images_and_labels(self, batch: Any) -> tuple[Images, Labels]:
        """In the precision of the network, and as integers of 64 bits."""
        weights = (p for p in self.net.parameters() if p.is_floating_point())
        return images_and_labels(batch, next((p.dtype for p in weights), None))

    def _step(self, x: Images, y: Labels, batch_idx: int) -> Mapping[str, Any]:
        part = part_of(self._trainer, len(x), batch_idx)
        if self.awp is not None:
            self.awp.restore()  # if the last step failed
        epoch = self._epochs_done(batch_idx)
        noise = part.noise(self._noise(x.device, self.current_epoch, batch_idx))
        raised, trained = self._smoothed(x, y, batch_idx, part)
        found, of_attack = self._run_attack(x, y, batch_idx, noise, raised)
        aligned = self._gradients(found, y if raised is None else raised, part)
        if self.awp is not None and self._perturbs_weights():
            with frozen_running_stats(self.net):
                pair = self._pair(x, y, found, trained).gathered(part)
            self.awp.ascend(self.net, self.objective(pair, epoch).total)
            del pair  # and what is left of its graph
        pair = self._pair(x, y, found, trained).gathered(part)
        clean_grad = found.clean_grad if self._shares_passes and raised is None else None
        vicinity = Vicinity(self.net, x, y, noise, clean_grad, part)
        if not self._knows_traits:
            self.objective.require_traits(pair.adv.shape[1], x.device)
            self._knows_traits = True
        losses = self.objective(pair, epoch, vicinity)
        of_batch = torch.stack([*x.aminmax(), *y.aminmax(), y.new_full((), pair.adv.shape[1])])
        return {
            "loss": losses.total,
            "parts": losses.parts,
            "pair": pair.detach(),
            "extremes": torch.cat([of_batch, of_attack]),
            **({} if aligned is None else {"gradients": aligned}),
        }

    def on_after_backward(self) -> None:
        """Restores perturbed weights before the step of the optimizer; measures PertAlign."""
        if self.awp is not None:
            self.awp.restore()
        if self._to_align is not None:
            (start_grad, x_adv, part), self._to_align = self._to_align, None
            assert x_adv.grad is not None
            self._remember_align(start_grad, x_adv.grad, part)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["objective"] = self.objective.state_dict()
        checkpoint["attack"] = dict(self.memory)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.objective.load_state_dict(checkpoint["objective"])
        self.memory = dict(checkpoint["attack"])

    def on_validation_epoch_start(self) -> None:
        self._percentiles, self._validated = {}, 0

    def validation_step(
        self, batch: Sequence[Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Accuracies and delta energies on held-out images, in fp32."""
        if dataloader_idx:
            raise ValueError("held-out images must come from one loader, got several")
        x, y = self._images_and_labels(batch)
        require_held_out(self.net, x, y, self._classes)
        part = part_of(self._trainer, len(x), batch_idx)
        images = range(self._validated, self._validated + part.whole)[part.place]
        self._validated += part.whole
        noise = partial(ImageNoise.of, images, self.seed)
        for prefix, net in self.validated_nets.items():
            with full_precision(x.device.type), eval_mode(net()):
                values = validation_metrics(
                    net(), self.val_attacks, x, y, part, noise, prefix, self._percentiles
                )
            self.log_dict(
                # else Lightning counts one step less
                values | {"step": float(self.global_step), "epoch": float(self.current_epoch)},
                on_epoch=True,
                on_step=False,
                batch_size=part.whole,
                sync_dist=True,  # all processes have the values of the whole batch
            )

    def on_validation_epoch_end(self) -> None:
        found = {name: value.compute() for name, value in self._percentiles.items()}
        self.log_dict(found, sync_dist=True)  # equal in all processes

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = optimizer_of(self.optimizer, self.net)
        if self.schedule is None:
            return optimizer
        require_trainer(self.trainer)  # a schedule would say that it lacks steps
        total = self.trainer.estimated_stepping_batches
        return {"optimizer": optimizer, "lr_scheduler": stepped(self.schedule, optimizer, total)}

    def _run_attack(
        self, x: Images, y: Labels, batch_idx: int, noise: Noise, targets: Targets | None = None
    ) -> tuple[AttackResult, Tensor]:
        """What the attack finds, and its ``extremes``."""
        attack = self._attack_at(batch_idx)
        self.memory = {name: value.to(x.device) for name, value in self.memory.items()}
        loader = self.trainer.train_dataloader if self._trainer is not None else None
        with self._attack_mode():
            options = AttackOptions(
                keep_graph=self._shares_passes and needs_graph(attack, self.objective.traits),
                track_stats=self.bn_mode == "batch",
                generator=noise,
                targets=targets,
                place=place_of(attack, loader, x, self._epochs_done(batch_idx), batch_idx),
                memory=self.memory,
            )
            found = attack.run(self.net, x, y, options)
        return found, attack.extremes(x, found.x_adv)

    def _attack_mode(self) -> AbstractContextManager[None]:
        return nullcontext() if self.bn_mode == "batch" else eval_mode(self.net)

    def _gradients(
        self, found: AttackResult, targets: Labels | Targets, part: Part
    ) -> tuple[Images, Images] | None:
        """Gradient of the cross-entropy at the start, and ``x*`` that the backward pass gives its.

        ``None`` where nobody asked, or the backward pass gives another gradient. An attack that
        needs PertAlign has it measured by a pass of its own then.
        """
        reads, start_grad = self.attack.reads_pert_align, found.start_grad
        if start_grad is None or not (reads or self.observes_gradients):
            return None
        if self._shares_passes and fits_adv_alone(self.objective):
            gradients = start_grad, found.x_adv.requires_grad_()
            self._to_align = (*gradients, part) if reads else None
            return gradients
        if reads:
            with self._attack_mode():
                grad = input_gradient(self.net, found.x_adv, targets, create_graph=False)
            self._remember_align(start_grad, grad, part)
        return None

    def _remember_align(self, at_start: Images, at_adv: Images, part: Part) -> None:
        self.memory["pert_align"] = summed(pert_align(at_start, at_adv).sum()) / part.whole

    def _smoothed(
        self, x: Images, y: Labels, batch_idx: int, part: Part
    ) -> tuple[Targets, Targets] | tuple[None, None]:
        """Smoothed labels for the attack and for the loss, drawn separately as published."""
        if self.smoothing is None:
            return None, None
        noise = part.noise(self._noise(x.device, self.current_epoch, batch_idx, of=1))
        of_attack, of_loss = (self.smoothing(y, noise).to(x.dtype) for _ in range(2))
        return of_attack, of_loss

    @property
    def _shares_passes(self) -> bool:
        """Whether the attack runs the network in the mode, and at the weights, of the training.

        Only then are its logits and gradients reused.
        """
        return self.reuse and self.bn_mode == "batch" and not self._perturbs_weights()

    def _pair(
        self, x: Images, y: Labels, found: AttackResult, smoothed: Targets | None = None
    ) -> LogitPair:
        """Logits of clean and adversarial images; clean ones are NaN if nothing reads them."""
        traits, shared = self.objective.traits, self._shares_passes
        start = start_logits(self, found, traits, shared=shared)
        clean = clean_logits(self, x, found, traits, shared=shared, observed=self.observes_clean)
        adv = self.forward(found.x_adv)
        clean = torch.full_like(adv, torch.nan) if clean is None else clean
        return LogitPair(clean, adv, y, start, smoothed)

    def _perturbs_weights(self) -> bool:
        return self.awp is not None and self._epoch >= self.awp.warmup_epochs

    def _attack_at(self, batch_idx: int) -> Attack:
        if not self.eps_warmup_epochs:
            return self.attack
        # a radius of 0 is invalid: the warm-up counts the present step
        done = self._epochs_done(batch_idx + 1) / self.eps_warmup_epochs
        return self.attack.scaled(done) if done < 1 else self.attack

    def _noise(
        self, device: torch.device, epoch: int, batch_idx: int, *, of: int = 0
    ) -> torch.Generator:
        """Noise ``of`` 0: attacks and regularizers, or 1: smoothed labels."""
        # a function of the position: a resumed run draws the same noise as an uninterrupted one
        return torch.Generator(device).manual_seed(mixed(self.seed, of, epoch, batch_idx))

    def _epochs_done(self, batches: int) -> float:
        per_epoch = float(self._trainer.num_training_batches) if self._trainer else 1.0
        return self._epoch + batches / per_epoch

    @property
    def _epoch(self) -> int:
        """Epoch of everything that changes over a training, such as warm-ups."""
        return max(self.current_epoch - self.repeated_epochs, 0)
