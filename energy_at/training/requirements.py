"""What a training needs of its network, images and labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from energy_at.attacks import LIET, Attack, NoAttack
from energy_at.attacks.base import AN_ATTACK
from energy_at.core.progress import write_line
from energy_at.core.ranges import RANGES
from energy_at.core.rules import (
    FUNCTION,
    TRAINER,
    TRUTH,
    ArgumentError,
    Rule,
    an,
    integer,
    number,
    or_null,
    require,
)
from energy_at.core.types import (
    Images,
    Labels,
    Logits,
    require_images,
    require_indices,
    require_labels,
    require_pixels,
)
from energy_at.energy.energies import resolution
from energy_at.models.modes import eval_mode, no_graph, try_on
from energy_at.objectives import CleanCrossEntropy, LabelSmoothing, Objective, Trait
from energy_at.objectives.objective import AN_OBJECTIVE, traits_of
from energy_at.training.optim import A_NETWORK, AN_OPTIMIZER_FACTORY, WeightPerturbation

_ARGUMENTS = {
    "net": A_NETWORK,
    "attack": AN_ATTACK,
    "objective": AN_OBJECTIVE,
    "val_attacks": Rule(
        'a dictionary of attacks, such as {"pgd10": pgd(Linf(8 / 255))}',
        lambda value: isinstance(value, Mapping) and all(map(AN_ATTACK.holds, value.values())),
    ),
    "optimizer": AN_OPTIMIZER_FACTORY,
    "schedule": or_null(FUNCTION),
    **RANGES["training.AdversarialTraining"],
    "smoothing": or_null(an(LabelSmoothing, "a LabelSmoothing")),
    "awp": or_null(an(WeightPerturbation, "a WeightPerturbation")),
    "seed": integer(0),
    "reuse": TRUTH,
}


def require_arguments(training: nn.Module) -> None:
    """Raises ``ValueError`` for the first attribute of a training that breaks its rule."""
    for name, rule in _ARGUMENTS.items():
        require(rule, **{name: getattr(training, name)})
    require_initialized(training.get_submodule("net"))


def require_initialized(net: nn.Module) -> None:
    """Raises ``ValueError`` if a lazy layer of the network has no weights yet."""
    lazy = [name for name, parameter in net.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise ValueError(
            f"the network has lazy layers without weights ({', '.join(lazy)}): give them their "
            "sizes, or call it on a batch of images before it is trained"
        )


def require_precise(net: nn.Module) -> None:
    """Raises ``ValueError`` if the weights of the network are of 16 bits."""
    dtype = next(weight.dtype for weight in net.parameters() if weight.requires_grad)
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"the weights of the network must be float32 or float64, got {dtype}: net.float(); "
            "bf16-mixed of the trainer computes in 16 bits"
        )


def images_and_labels(batch: Any, dtype: torch.dtype | None) -> tuple[Images, Labels]:
    """The two tensors of a batch, as a training takes them.

    Args:
        batch: ``(images, labels)``; images of any floating-point type, labels of any integer type.
        dtype: Of the weights of the network; ``None`` if it has none.

    Raises:
        ValueError: if it is anything else.
    """
    if not isinstance(batch, Sequence) or len(batch) != 2:
        kind = f"a {type(batch).__name__}"
        raise ValueError(
            "a batch must be (images, labels), got "
            + (f"{kind} of {len(batch)}" if isinstance(batch, Sequence | dict) else kind)
        )
    x, y = batch
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        raise ValueError(
            "a batch must be (images, labels), two tensors, got "
            f"({type(x).__name__}, {type(y).__name__})"
        )
    require_images(x)
    if not len(x):
        raise ValueError("a batch must hold an image, got none")
    require_indices(y, len(x))
    return x.to(dtype or x.dtype), y.long()


def require_logits(net: nn.Module, x: Images) -> Logits:
    """The logits of a few images.

    Raises:
        ValueError: if it does not take these images, or does not return logits.
    """
    logits = try_on(net, x)
    if not (logits.requires_grad or torch.is_inference_mode_enabled()):
        raise ValueError(
            "the network returns logits without a gradient with respect to the images, which "
            "attacks need: look for no_grad or detach in its forward"
        )
    logits = logits.detach()
    if (found := _why_no_logits(logits.double())) is not None:
        raise ValueError(f"the network must return logits, got {found}")
    return logits


def warn_of_rounding(logits: Logits) -> None:
    """Writes a warning if the logits share an offset that hides their energies in fp32."""
    nats, spread = float(resolution(logits.float()).max()), float(logits.std(1).mean())
    if nats > spread / 100:
        write_line(
            f"warning: logits near {float(logits.mean()):.2g} leave fp32 a resolution of "
            f"{nats:.2g} nats, while those of an image differ by {spread:.2g}: energies are "
            "rounded away; subtract the common offset"
        )


def _why_no_logits(outputs: Logits) -> str | None:
    if not outputs.isfinite().all():
        return "values that are not finite"
    if outputs.min() >= 0 and bool(((outputs.sum(1) - 1).abs() < 1e-4).all()):
        return "probabilities: leave out the softmax"
    if outputs.max() <= 0 and bool((outputs.logsumexp(1).abs() < 1e-4).all()):
        return "log-probabilities, whose E(x) is 0: leave out the log_softmax"
    return None


def last_batch(loader: Any, batches: float) -> int | None:
    """Images in the last of all batches of a loader; ``None`` if it is unknown, or not reached."""
    size = getattr(loader, "batch_size", None)
    images = getattr(loader, "images", getattr(loader, "dataset", None))
    try:
        n = len(images)  # type: ignore[arg-type]
        whole = len(loader) <= batches
    except TypeError:  # of an iterable data set
        return None
    if not isinstance(size, int) or not whole or getattr(loader, "drop_last", False):
        return None
    return min(n % size or size, n)


def require_batches(net: nn.Module, x: Images, batch_size: int) -> None:
    """Raises ``ValueError`` if batch norm cannot train on a single image, such as the first of x.

    It can where a channel has several positions. The last batch of an epoch is of one image.
    """
    single: list[str] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].numel() == inputs[0].shape[1]:
            single.append(type(module).__name__)

    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    hooks = [module.register_forward_pre_hook(look) for module in norms]
    try:
        with no_graph(), eval_mode(net), torch.compiler.set_stance("force_eager"):
            net(x[:1])
    finally:
        for hook in hooks:
            hook.remove()
    if single:
        must = "another: the last batch of an epoch is one image, which cannot pass batch norm"
        raise ArgumentError("batch_size", batch_size, must)


def require_batch(net: nn.Module, x: Images, trainer: Trainer | None) -> None:
    """Raises ``ValueError`` for a single image of a loader of unknown length, as above."""
    if len(x) > 1 or trainer is None:
        return
    if last_batch(trainer.train_dataloader, trainer.num_training_batches) is None:
        require_batches(net, x, len(x))


def require_first_batch(
    net: nn.Module, x: Images, y: Labels, trainer: Trainer, *parts: LabelSmoothing | Attack | None
) -> int:
    """Number of classes of the network, if the training can begin.

    Args:
        net: The network that is trained.
        x: Images of its first batch.
        y: Their labels.
        trainer: Whose loader it comes from.
        parts: What is made for a number of classes, too.

    Raises:
        ValueError: if the training, or the last batch of its first epoch, would fail.
    """
    require_pixels(float(x.min()), float(x.max()), "training")
    logits = require_logits(net, x[:8])
    warn_of_rounding(logits)
    classes = logits.shape[1]
    require_labels(int(y.min()), int(y.max()), classes)
    require_classes(classes, *parts)
    loader: Any = trainer.train_dataloader
    if last_batch(loader, trainer.num_training_batches) == 1:
        require_batches(net, x, loader.batch_size)
    return classes


def require_held_out(net: nn.Module, x: Images, y: Labels, classes: int) -> None:
    """Raises ``ValueError`` if a batch cannot be validated on.

    Args:
        net: The network.
        x: Images of the batch.
        y: Their labels.
        classes: Of the network; 0 before the first batch to train on, which Lightning may validate
            before.
    """
    require_pixels(float(x.min()), float(x.max()), "validation")
    require_labels(int(y.min()), int(y.max()), classes or require_logits(net, x[:2]).shape[1])


def require_known_length(trainer: Trainer, eps_warmup_epochs: float, objective: Objective) -> None:
    """Raises ``ValueError`` if anything rises over epochs of an unknown number of batches."""
    rises = [weighted.ramp_epochs for weighted in objective.terms.values()]
    if trainer.num_training_batches == float("inf") and any((eps_warmup_epochs, *rises)):
        raise ValueError(
            "eps_warmup_epochs and ramp_epochs need epochs of a known length: give the "
            "loader a length, or the trainer limit_train_batches"
        )


def require_steps(trainer: Trainer) -> None:
    """Raises ``ValueError`` if a training has ended without any step."""
    if trainer.global_step == 0:
        raise ValueError(
            "the network was trained for no step: the loader has no batch, or max_epochs, "
            "max_time or limit_train_batches leaves none"
        )


def require_classes(classes: int, *parts: LabelSmoothing | Attack | None) -> None:
    """Raises ``ValueError`` if label smoothing, or LIET, is of another number of classes."""
    for part in parts:
        if isinstance(part, LabelSmoothing | LIET) and part.classes != classes:
            must = f"{classes}, the number of logits of the network"
            raise ArgumentError(f"classes of {type(part).__name__}", part.classes, must)


def require_attack(attack: Attack, objective: Objective) -> None:
    """Raises ``ValueError`` if terms compare clean and adversarial images, and nothing attacks."""
    compares = Trait.READS_CLEAN | Trait.READS_START | Trait.TRAINS_START
    terms = [weighted.term for weighted in objective.terms.values()]
    if isinstance(attack, NoAttack) and any(
        traits_of(term) & compares for term in terms if not isinstance(term, CleanCrossEntropy)
    ):
        raise ValueError(
            "attack=none (NoAttack) leaves the loss, or the regularizer, nothing to compare: "
            "choose an attack, or loss=at reg=none for standard training"
        )


def require_trainer(trainer: Trainer) -> None:
    """Raises ``ValueError`` for settings of the trainer that no training here can honour."""
    for name, rule in TRAINER.items():
        require(rule, **{name: getattr(trainer, name)})
    require(or_null(number(0)), gradient_clip_val=trainer.gradient_clip_val)
    strategies = SingleDeviceStrategy, DDPStrategy
    require(an(strategies, "auto or ddp"), strategy=trainer.strategy)


def require_fit(trainer: Trainer, net: nn.Module, attack: Attack, objective: Objective) -> None:
    """Raises ``ValueError`` if a trainer cannot train a network with an attack and an objective."""
    require_trainer(trainer)
    require_precise(net)
    require_attack(attack, objective)
    require_shareable(attack, trainer.world_size)


def require_shareable(attack: Attack, processes: int) -> None:
    """Raises ``ValueError`` if an attack needs batches that several processes share."""
    if processes > 1 and attack.reads_whole_batch:
        must = f"1: {type(attack).__name__} needs all images of a batch in one process"
        raise ArgumentError("devices", processes, must)
