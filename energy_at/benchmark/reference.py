"""Adversarial training as published repositories write it: plain PyTorch, to compare with.

The loops of Wong et al. (2020), Zhang et al. (2019) and Andriushchenko & Flammarion (2020), written
anew: ``loss.backward()`` inside the attack, a forward pass of its own for clean logits, TRADES
computing the clean prediction again at every step, ``.item()`` after every step, contiguous fp32,
images from a ``DataLoader`` that transforms them one by one. The mathematics is that of our
methods: a step from the same weights, on the same batch and noise, ends at the same weights.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from energy_at.attacks import GradientAttack
from energy_at.attacks.threat import Ball, Linf
from energy_at.core.types import Images, Labels, Logits, Scalar
from energy_at.data import ImageSet
from energy_at.models.modes import eval_mode
from energy_at.objectives import (
    DER,
    AdversarialCrossEntropy,
    CleanCrossEntropy,
    GradAlign,
    Objective,
    TradesKL,
    Weighted,
)

PublishedAttack = Callable[
    [nn.Module, Images, Labels, GradientAttack, torch.Generator | None], Images
]


@dataclass(frozen=True)
class Method:
    """Constants of a method that has a published loop.

    Attributes:
        search: The attack's constants and start.
        trades: Weight of the divergence of TRADES; ``None`` for adversarial cross-entropy.
        der: DER and its weight.
        gradalign: Weight of GradAlign.
    """

    search: GradientAttack
    trades: float | None = None
    der: tuple[DER, float] | None = None
    gradalign: float | None = None

    @classmethod
    def of(cls, attack: object, objective: Objective) -> "Method":
        """The method that trains by this attack and objective.

        Raises:
            ValueError: if it has no loop here.
        """
        found: dict[type, Weighted] = {type(w.term): w for w in objective.terms.values()}
        base = {AdversarialCrossEntropy, CleanCrossEntropy, TradesKL}
        unknown = set(found) - base - {DER, GradAlign}
        if unknown or not isinstance(attack, GradientAttack) or not isinstance(attack.ball, Linf):
            raise ValueError("rows=[reference] has no published loop for this attack or objective")
        der = found.get(DER)
        weights = {kind: weighted.weight for kind, weighted in found.items()}
        return cls(
            attack,
            weights.get(TradesKL),
            (der.term, der.weight) if der and isinstance(der.term, DER) else None,
            weights.get(GradAlign),
        )


def train_step(
    net: nn.Module,
    optimizer: Optimizer,
    x: Images,
    y: Labels,
    method: Method,
    generator: torch.Generator | None = None,
    attack: PublishedAttack | None = None,
) -> float:
    """One optimizer step, by another attack if one is given; returns its loss."""
    own = trades_attack if method.trades is not None else cross_entropy_attack
    x_adv = (attack or own)(net, x, y, method.search, generator)
    net.train()
    optimizer.zero_grad()
    loss = loss_of_pair(net, x, x_adv, y, method)
    if method.gradalign is not None:
        loss = loss + method.gradalign * gradalign(net, x, y, method.search.ball, generator)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


def loss_of_pair(net: nn.Module, x: Images, x_adv: Images, y: Labels, method: Method) -> Scalar:
    """Adversarial cross-entropy, or the loss of TRADES, and DER."""
    if method.trades is not None:
        clean = net(x)
        adv, again = net(x_adv), net(x)
        divergence = F.kl_div(adv.log_softmax(1), again.softmax(1), reduction="batchmean")
        loss = F.cross_entropy(clean, y) + method.trades * divergence
    else:
        adv = net(x_adv)
        loss = F.cross_entropy(adv, y)
        clean = net(x) if method.der else adv
    if method.der:
        term, weight = method.der
        loss = loss + weight * delta_energy(clean, adv, y, term)
    return loss


def delta_energy(clean: Logits, adv: Logits, y: Labels, term: DER) -> Scalar:
    """Batch mean of DER, from its definition."""
    marginal = -clean.logsumexp(1) + adv.logsumexp(1)
    joint = -clean[range(len(y)), y] + adv[range(len(y)), y]
    penalty = (torch.stack([marginal, joint]).norm(dim=0) - term.gamma).clamp(min=0)
    if term.samples == "abnormal":
        rises = F.cross_entropy(adv, y, reduction="none") - F.cross_entropy(
            clean, y, reduction="none"
        )
        penalty = penalty * (rises < 0)
    return penalty.mean()  # type: ignore[no-any-return]


def cross_entropy_attack(
    net: nn.Module,
    x: Images,
    y: Labels,
    search: GradientAttack,
    generator: torch.Generator | None = None,
) -> Images:
    """FGSM, RS-FGSM, N-FGSM and PGD; ``loss.backward()`` computes weight gradients in vain."""
    delta = search.start(x, search.ball, generator)
    delta = (x + delta).clamp(0, 1) - x
    for _ in range(search.steps):
        delta = delta.detach().requires_grad_()
        loss = F.cross_entropy(net(x + delta), y)
        loss.backward()  # type: ignore[no-untyped-call]
        assert delta.grad is not None
        delta = delta.detach() + search.alpha * delta.grad.sign()
        if search.project:
            delta = delta.clamp(-search.ball.eps, search.ball.eps)
        delta = (x + delta).clamp(0, 1) - x
    return (x + delta).clamp(0, 1).detach()


def trades_attack(
    net: nn.Module,
    x: Images,
    _: Labels,
    search: GradientAttack,
    generator: torch.Generator | None = None,
) -> Images:
    """The inner maximisation of TRADES, which predicts the clean images at every step."""
    eps = search.ball.eps
    x_adv = (x + search.start(x, search.ball, generator)).clamp(0, 1).detach()
    net.eval()
    for _step in range(search.steps):
        x_adv.requires_grad_()
        divergence = F.kl_div(net(x_adv).log_softmax(1), net(x).softmax(1), reduction="sum")
        (grad,) = torch.autograd.grad(divergence, x_adv)
        x_adv = x_adv.detach() + search.alpha * grad.sign()
        x_adv = torch.min(torch.max(x_adv, x - eps), x + eps).clamp(0, 1)
    return x_adv.detach()


def gradalign(
    net: nn.Module, x: Images, y: Labels, ball: Ball, generator: torch.Generator | None = None
) -> Scalar:
    """``1 - cos`` of the gradients at the image and near it."""
    at_x = _input_gradient(net, x, y)
    near = _input_gradient(net, x + ball.sample(x, generator), y, create_graph=True)
    return (1 - F.cosine_similarity(at_x.flatten(1), near.flatten(1), dim=1)).mean()


def evaluate(
    net: nn.Module,
    x: Images,
    y: Labels,
    search: GradientAttack,
    attack: PublishedAttack | None = None,
) -> float:
    """Accuracy under attack."""
    with eval_mode(net):
        x_adv = (attack or cross_entropy_attack)(net, x, y, search, None)
        with torch.no_grad():
            return float((net(x_adv).argmax(1) == y).float().mean().item())


def sample(net: nn.Module, x: Images, y: Labels, *, steps: int, step_size: float) -> Images:
    """Langevin dynamics with momentum 0.8 and noise 0.001 on ``E(x, y)``."""
    velocity = torch.zeros_like(x)
    with eval_mode(net):
        for _ in range(steps):
            x = x.detach().requires_grad_()
            energy = -net(x)[range(len(y)), y]
            energy.sum().backward()
            assert x.grad is not None
            velocity = 0.8 * velocity - 0.5 * step_size * x.grad
            x = (x.detach() + velocity + 0.001 * torch.randn_like(x)).clamp(0, 1)
    return x


def _input_gradient(net: nn.Module, x: Images, y: Labels, *, create_graph: bool = False) -> Images:
    x = x.detach().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(net(x), y), x, create_graph=create_graph)
    return grad


class TransformedImages(Dataset[tuple[Tensor, int]]):
    """Images that are padded, cropped, mirrored and cast one by one, by torchvision."""

    def __init__(self, images: ImageSet, *, pad: int, flip: bool) -> None:
        size = images.pixels.shape[-1]
        self.images = images.pixels.permute(0, 2, 3, 1).cpu().numpy()
        self.labels = images.labels.tolist()
        steps = [transforms.ToPILImage(), transforms.RandomCrop(size, padding=pad)]
        steps += [transforms.RandomHorizontalFlip()] if flip else []
        self.transform = transforms.Compose([*steps, transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def batches(
    images: ImageSet, batch_size: int, *, pad: int, flip: bool, workers: int
) -> Iterator[tuple[Images, Labels]]:
    """Batches without end, on the CPU."""
    loader = DataLoader(
        TransformedImages(images, pad=pad, flip=flip),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
    while True:
        yield from loader
