"""Adversarial training: attack the batch, forward the pair, minimise the objective."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from energy_at.attacks import Attack, AttackResult
from energy_at.data import EvalLoader, TrainLoader
from energy_at.metrics import accuracies, delta_energies
from energy_at.modes import eval_mode, frozen_running_stats, full_precision, no_graph
from energy_at.noise import Noise
from energy_at.objectives import Objective, Trait, Vicinity
from energy_at.pairs import LogitPair
from energy_at.processes import Part
from energy_at.shapes import Images, Labels, Logits
from energy_at.training.optimizers import sgd
from energy_at.training.weights import WeightPerturbation

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
        self.observes_clean = False  # a callback that wants clean logits of every step sets this
        self.validated_nets: dict[str, Callable[[], nn.Module]] = {"val": lambda: self.net}

    def forward(self, x: Images) -> Logits:
        """Logits of a batch, in the precision of the images under autocast too."""
        return self.net(x).to(x.dtype)  # type: ignore[no-any-return]

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
        _require_batch(self.net, part.whole)
        if self.awp is not None:
            self.awp.restore()  # of a step that failed on its way
        epoch = self._epochs_done(batch_idx)
        noise = part.noise(self._noise(x.device, self.current_epoch, batch_idx))
        found = self._attacked(x, y, batch_idx, noise)
        if self._perturbs_weights():
            self._ascend(x, y, found, epoch, part)
        pair = part.joined_pair(self._pair(x, y, found))
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
        for prefix, net in self.validated_nets.items():
            with full_precision(x.device.type), eval_mode(net()):
                values = self._validated(net(), x, y, batch_idx)
            self.log_dict(
                {f"{prefix}/{name}": value for name, value in values.items()}
                # else Lightning counts one step less
                | {"step": float(self.global_step), "epoch": float(self.current_epoch)},
                on_epoch=True,
                on_step=False,
                batch_size=self._part(len(x), batch_idx).whole,
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
                keep_graph=self._keeps_graph(attack),
                track_stats=self.bn_mode == "batch",
                generator=noise,
            )

    def _pair(self, x: Images, y: Labels, found: AttackResult) -> LogitPair:
        start = self._start_logits(found)
        clean = self._clean_logits(x, found)
        adv = self(found.x_adv)
        return LogitPair(torch.full_like(adv, torch.nan) if clean is None else clean, adv, y, start)

    def _vicinity(
        self, x: Images, y: Labels, found: AttackResult, noise: Noise, part: Part
    ) -> Vicinity:
        grad = found.clean_grad if self._shares_passes() else None
        return Vicinity(self.net, x, y, noise, grad, part)

    def _shares_passes(self) -> bool:
        """Whether the attack runs the network in the mode, and at the weights, of the training."""
        return self.reuse and self.bn_mode == "batch" and not self._perturbs_weights()

    def _perturbs_weights(self) -> bool:
        return self.awp is not None and self.current_epoch >= self.awp.warmup_epochs

    def _ascend(self, x: Images, y: Labels, found: AttackResult, epoch: float, part: Part) -> None:
        assert self.awp is not None
        with frozen_running_stats(self.net):
            pair = part.joined_pair(self._pair(x, y, found))
        self.awp.ascend(self.net, self.objective(pair, epoch).total)

    def _keeps_graph(self, attack: Attack) -> bool:
        traits = self.objective.traits
        trains_clean = Trait.TRAINS_CLEAN in traits and attack.starts_clean
        reusable = trains_clean and Trait.FITS_CLEAN not in traits
        return self._shares_passes() and (reusable or Trait.TRAINS_START in traits)

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

    def _start_logits(self, found: AttackResult) -> Logits | None:
        if Trait.READS_START not in self.objective.traits:
            return None
        if self._shares_passes() or found.x_start is None:
            return found.start_logits
        with frozen_running_stats(self.net):
            return self(found.x_start)  # type: ignore[no-any-return]

    def _clean_logits(self, x: Images, found: AttackResult) -> Logits | None:
        traits = self.objective.traits
        if Trait.FITS_CLEAN in traits:
            return self(x)  # type: ignore[no-any-return]
        trains, reads = Trait.TRAINS_CLEAN in traits, Trait.READS_CLEAN in traits
        if not (trains or reads or self.observes_clean):
            return None
        logits = found.clean_logits if self._shares_passes() else None
        if logits is not None and (logits.requires_grad or not trains):
            return logits
        # Regularizing or measuring clean images must leave the running statistics as the base
        # method leaves them; a forward pass in training mode would move them.
        with frozen_running_stats(self.net), nullcontext() if trains else no_graph():
            return self(x)  # type: ignore[no-any-return]

    def _validated(self, net: nn.Module, x: Images, y: Labels, batch_idx: int) -> dict[str, Tensor]:
        part = self._part(len(x), batch_idx)
        with no_graph():
            clean = net(x)
        values: dict[str, Tensor] = {}
        for name, attack in self.val_attacks.items():
            noise = part.noise(self._noise(x.device, 0, batch_idx))
            x_adv = attack(net, x, y, generator=noise).x_adv
            with no_graph():
                pair = part.joined_pair(LogitPair(clean, net(x_adv), y))
            shares = accuracies(pair)
            values |= {"acc/clean": shares["acc/clean"], f"acc/{name}": shares["acc/adv"]}
            values |= {f"{name}/{metric}": value for metric, value in delta_energies(pair).items()}
        return _last_attack_plain(values, next(reversed(self.val_attacks), ""))

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
        parts = (self.seed, 0, epoch, batch_idx)
        state = np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1
        return torch.Generator(device).manual_seed(int(state))

    def _epochs_done(self, batches: int) -> float:
        per_epoch = float(self._trainer.num_training_batches) if self._trainer else 1.0
        return self.current_epoch + batches / per_epoch


def _last_attack_plain(values: dict[str, Tensor], last: str) -> dict[str, Tensor]:
    """``pgd/delta_energy/joint`` becomes ``delta_energy/joint`` for the strongest attack."""
    return {name.removeprefix(f"{last}/"): value for name, value in values.items()}


def require_batches(net: nn.Module, images: int, batch_size: int) -> None:
    """Refuses an epoch that leaves a batch of one image to batch norm.

    Raises:
        ValueError: if it does.
    """
    _require_batch(net, min(images % batch_size or batch_size, images))


def _require_batch(net: nn.Module, size: int) -> None:
    if size == 1 and any(isinstance(module, _BatchNorm) for module in net.modules()):
        raise ValueError(
            "a training batch of one image cannot pass batch norm: choose a dataset.batch_size "
            "that leaves at least two images in the last batch"
        )


def require_pixels(low: float, high: float, stage: str) -> None:
    """Refuses images whose pixels do not lie in [0, 1].

    Raises:
        ValueError: if the lowest or the highest does not.
    """
    if not (low >= 0 and high <= 1):
        cure = (
            "divide bytes by 255"
            if low >= 0 and high > 2
            else "normalization is the network's first layer, not the data's"
        )
        raise ValueError(f"{stage} images must lie in [0, 1], got [{low:g}, {high:g}]: {cure}")
