"""Adversarial training: attack the batch, forward the pair, minimise the objective."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from energy_at.attacks import Attack, AttackResult
from energy_at.core.distributed import Part
from energy_at.core.rng import Noise, mixed
from energy_at.core.types import Images, Labels, Logits
from energy_at.data import EvalLoader, TrainLoader
from energy_at.energy.pair import LogitPair
from energy_at.models.modes import eval_mode, frozen_running_stats, full_precision
from energy_at.objectives import Objective, Vicinity
from energy_at.training.awp import WeightPerturbation
from energy_at.training.forward import Passes, logits
from energy_at.training.optim import sgd
from energy_at.training.requirements import require_batch, require_batches, require_pixels
from energy_at.training.validation import validated

OptimizerFactory = Callable[[nn.Module], Optimizer]
ScheduleFactory = Callable[[Optimizer, int], LRScheduler]  # given the number of all steps
BNMode = Literal["batch", "eval"]


class AdversarialTraining(LightningModule):
    """Trains a classifier on pairs of clean and adversarial images.

    Every step hands its detached ``LogitPair`` to the callbacks under ``"pair"``, and its lowest
    and highest pixel under ``"pixels"``; what is measured of them is their business.

    Args:
        net: Classifier of images in [0, 1].
        attack: Finds the adversarial images to train on.
        objective: What to minimise.
        val_attacks: Find the adversarial images to validate on; ``"pgd"`` gives ``val/acc/pgd``.
        optimizer: Makes an optimizer of the network.
        schedule: Makes a learning-rate schedule that is stepped after every batch.
        bn_mode: How batch norm runs in the training attack: on the statistics of the ``"batch"``
            (fast and standard AT) or on the running ones, ``"eval"`` (TRADES). With ``"batch"``
            the running statistics move twice a step, with the attack's first point and with
            ``x*``, as in the published code of fast AT; with ``"eval"`` the attack leaves them
            alone. Regularizers and monitors never move them.
        eps_warmup_epochs: Epochs over which the radius of the training attack rises from 0.
        awp: Perturbs the weights before every step. It ascends the terms that see the pair; the
            probes among the regularizers only see the perturbed weights.
        seed: Of the noise of the attacks, together with epoch and batch.
        reuse: Whether clean logits and gradients come out of the attack's own passes where those
            compute them; without, each is computed again, to the same values.
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
        if bn_mode not in get_args(BNMode):
            raise ValueError(f"training.bn_mode must be batch or eval, got {bn_mode!r}")
        if not 0 <= eps_warmup_epochs < float("inf"):
            raise ValueError(f"training.eps_warmup must be >= 0 epochs, got {eps_warmup_epochs:g}")
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
        self.repeated_epochs = 0  # after a rollback: what goes by epochs is so many behind
        self.observes_clean = False  # a callback that wants clean logits of every step sets this
        self.validated_nets: dict[str, Callable[[], nn.Module]] = {"val": lambda: self.net}

    def forward(self, x: Images) -> Logits:
        """Logits of a batch, in the precision of the images under autocast too."""
        return logits(self.net, x)

    def on_train_start(self) -> None:
        """Refuses data that would leave a batch of one image to batch norm."""
        loader = self.trainer.train_dataloader
        if isinstance(loader, TrainLoader):
            require_batches(self.net, len(loader.images), loader.batch_size)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Back-propagates the loss of the whole batch.

        Lightning takes the mean of the processes' gradients, and these are parts of a sum.
        """
        world = self.trainer.world_size
        super().backward(world * loss if world > 1 else loss, *args, **kwargs)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Mapping[str, Any]:
        """One step of the outer minimisation."""
        x, y = batch
        if batch_idx == 0:
            require_pixels(float(x.min()), float(x.max()), "training")
        part = self._part(len(x), batch_idx)
        require_batch(self.net, part.whole)
        if self.awp is not None:
            self.awp.restore()  # of a step that failed on its way
        epoch = self._epochs_done(batch_idx)
        noise = part.noise(self._noise(x.device, self.current_epoch, batch_idx))
        found = self._attacked(x, y, batch_idx, noise)
        if self._perturbs_weights():
            self._ascend(x, y, found, epoch, part)
        pair = self._pair(x, y, found).gathered(part)
        losses = self.objective(pair, epoch, self._vicinity(x, y, found, noise, part))
        seen = torch.stack([x.min(), x.max()])
        return {
            "loss": losses.total,
            "parts": losses.parts,
            "pair": pair.detach(),
            "pixels": seen,
        }

    def on_after_backward(self) -> None:
        """Puts perturbed weights back before the optimizer sees them."""
        if self.awp is not None:
            self.awp.restore()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what the objective remembers of earlier steps."""
        checkpoint["objective"] = self.objective.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on with it."""
        self.objective.load_state_dict(checkpoint.get("objective", {}))

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Accuracies and delta energies on held-out images, in fp32."""
        x, y = batch
        require_pixels(float(x.min()), float(x.max()), "validation")
        part = self._part(len(x), batch_idx)

        def noise() -> Noise:
            return part.noise(self._noise(x.device, 0, batch_idx))

        for prefix, net in self.validated_nets.items():
            with full_precision(x.device.type), eval_mode(net()):
                values = validated(net(), self.val_attacks, x, y, part, noise)
            self.log_dict(
                {f"{prefix}/{name}": value for name, value in values.items()}
                # else Lightning counts one step less
                | {"step": float(self.global_step), "epoch": float(self.current_epoch)},
                on_epoch=True,
                on_step=False,
                batch_size=part.whole,
                sync_dist=True,  # all processes have measured the same, of the whole batch
            )

    def attacked_pair(self, x: Images, y: Labels, batch_idx: int = 0) -> LogitPair:
        """Attacks the batch, then runs no forward pass that the attack has already run.

        Clean logits that nobody reads are NaN, so that nobody reads them by mistake.
        """
        generator = self._noise(x.device, self.current_epoch, batch_idx)
        return self._pair(x, y, self._attacked(x, y, batch_idx, generator))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of the network, and its schedule stepped after every batch."""
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

    def _attacked(self, x: Images, y: Labels, batch_idx: int, noise: Noise) -> AttackResult:
        attack = self._attack_at(batch_idx)
        with self._attack_mode():
            return attack(
                self.net,
                x,
                y,
                keep_graph=self._passes().keeps_graph(attack),
                track_stats=self.bn_mode == "batch",
                generator=noise,
            )

    def _pair(self, x: Images, y: Labels, found: AttackResult) -> LogitPair:
        return self._passes().pair(x, y, found)

    def _passes(self) -> Passes:
        """Those that the attack runs serve if it runs them in the mode, and at the weights."""
        shared = self.reuse and self.bn_mode == "batch" and not self._perturbs_weights()
        return Passes(self.net, self.objective.traits, shared, self.observes_clean)

    def _vicinity(
        self, x: Images, y: Labels, found: AttackResult, noise: Noise, part: Part
    ) -> Vicinity:
        return Vicinity(self.net, x, y, noise, self._passes().clean_grad(found), part)

    def _perturbs_weights(self) -> bool:
        return self.awp is not None and self._epoch >= self.awp.warmup_epochs

    def _ascend(self, x: Images, y: Labels, found: AttackResult, epoch: float, part: Part) -> None:
        assert self.awp is not None
        with frozen_running_stats(self.net):
            pair = self._pair(x, y, found).gathered(part)
        self.awp.ascend(self.net, self.objective(pair, epoch).total)

    def _attack_at(self, batch_idx: int) -> Attack:
        if not self.eps_warmup_epochs:
            return self.attack
        # A radius of 0 is no ball: the warm-up counts the step that it is asked for.
        done = self._epochs_done(batch_idx + 1) / self.eps_warmup_epochs
        return self.attack.scaled(done) if done < 1 else self.attack

    @contextmanager
    def _attack_mode(self) -> Iterator[None]:
        if self.bn_mode == "batch":
            yield
        else:
            with eval_mode(self.net):
                yield

    def _part(self, own: int, batch_idx: int) -> Part:
        """What this process has of the batch; a loader that does not say has one for each."""
        if self._trainer is None or self._trainer.world_size == 1:
            return Part(own)
        trainer = self.trainer
        loader = trainer.train_dataloader if trainer.training else trainer.val_dataloaders
        if isinstance(loader, TrainLoader | EvalLoader):
            return loader.part(batch_idx)
        return Part(own * trainer.world_size, self.global_rank, trainer.world_size)

    def _noise(self, device: torch.device, epoch: int, batch_idx: int) -> torch.Generator:
        # A function of the position, so that a resumed run draws what the whole run draws. The 0
        # is of the time when processes drew for themselves; without it, all noise would be another.
        return torch.Generator(device).manual_seed(mixed(self.seed, 0, epoch, batch_idx))

    def _epochs_done(self, batches: int) -> float:
        per_epoch = float(self._trainer.num_training_batches) if self._trainer else 1.0
        return self._epoch + batches / per_epoch

    @property
    def _epoch(self) -> int:
        """Of everything that changes over a training."""
        return max(self.current_epoch - self.repeated_epochs, 0)
