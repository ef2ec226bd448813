"""Reference loops: adversarial training in plain PyTorch, as published repositories write it.

The loops of Wong et al. (2020), Zhang et al. (2019) and Andriushchenko & Flammarion (2020),
rewritten: ``loss.backward()`` inside the attack, a separate forward pass for clean logits, TRADES
computing the clean prediction again at every step, ``.item()`` after every step, contiguous fp32,
images from a ``DataLoader`` that transforms them one by one. The mathematics is that of our
methods: a step from the same weights, on the same batch and noise, ends at the same weights.
"""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from torchvision import transforms

from energy_at.attacks import GradientAttack
from energy_at.attacks.gradient import Uniform, misclassify
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

LibraryAttack = Callable[[Images, Labels], Images]
Terms = dict[type, Weighted]


def terms_of(attack: object, objective: Objective) -> tuple[GradientAttack, Terms]:
    """The search and the terms by type; raises ``ValueError`` if there is no loop for them."""
    terms: Terms = {type(weighted.term): weighted for weighted in objective.terms.values()}
    known = {AdversarialCrossEntropy, CleanCrossEntropy, TradesKL, DER, GradAlign}
    if isinstance(attack, GradientAttack) and isinstance(attack.ball, Linf) and set(terms) <= known:
        return attack, terms
    raise ValueError("rows=[reference] has no loop for this attack or objective")


def train_step(
    net: nn.Module,
    optimizer: Optimizer,
    x: Images,
    y: Labels,
    search: GradientAttack,
    terms: Terms,
    generator: torch.Generator | None = None,
    library: LibraryAttack | None = None,
) -> float:
    """One optimizer step, under a library's attack if one is given; returns its loss."""
    if library is not None:
        x_adv = library(x, y)
    else:
        attack = trades_attack if TradesKL in terms else cross_entropy_attack
        x_adv = attack(net, x, y, search, generator)
    net.train()
    optimizer.zero_grad()
    loss = pair_loss(net, x, x_adv, y, terms)
    if GradAlign in terms:
        penalty = gradalign(net, x, y, search.ball, generator)
        loss = loss + terms[GradAlign].weight * penalty
    torch.autograd.backward(loss)
    optimizer.step()
    return loss.item()


def pair_loss(net: nn.Module, x: Images, x_adv: Images, y: Labels, terms: Terms) -> Scalar:
    """Adversarial cross-entropy, or the loss of TRADES, and DER."""
    if TradesKL in terms:
        clean = net(x)
        adv, again = net(x_adv), net(x)
        divergence = F.kl_div(adv.log_softmax(1), again.softmax(1), reduction="batchmean")
        loss = F.cross_entropy(clean, y) + terms[TradesKL].weight * divergence
    else:
        adv = net(x_adv)
        loss = F.cross_entropy(adv, y)
        clean = net(x) if DER in terms else adv
    if DER in terms and isinstance(der := terms[DER].term, DER):
        loss = loss + terms[DER].weight * der_penalty(clean, adv, y, der)
    return loss


def der_penalty(clean: Logits, adv: Logits, y: Labels, term: DER) -> Scalar:
    """Batch mean of DER, from its definition."""
    marginal = -clean.logsumexp(1) + adv.logsumexp(1)
    joint = -clean[range(len(y)), y] + adv[range(len(y)), y]
    penalty = (torch.stack([marginal, joint]).norm(dim=0) - term.gamma).clamp(min=0)
    if term.samples == "abnormal":
        rises = F.cross_entropy(adv, y, reduction="none") - F.cross_entropy(
            clean, y, reduction="none"
        )
        penalty = penalty * (rises < 0)
    return torch.mean(penalty)


def cross_entropy_attack(
    net: nn.Module,
    x: Images,
    y: Labels,
    search: GradientAttack,
    generator: torch.Generator | None = None,
) -> Images:
    """FGSM, RS-FGSM, N-FGSM and PGD; ``loss.backward()`` also computes unused weight gradients."""
    delta = search.start(x, search.ball, generator)
    delta = (x + delta).clamp(0, 1) - x
    for _ in range(search.steps):
        delta = delta.detach().requires_grad_()
        loss = F.cross_entropy(net(x + delta), y)
        torch.autograd.backward(loss)
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


def library_attack(name: str, net: nn.Module, search: GradientAttack) -> LibraryAttack | None:
    """PGD of torchattacks or foolbox with the same constants; ``None`` if they lack it.

    Both libraries attack the network in evaluation mode.
    """
    if search.goal is not misclassify or not search.project:
        return None
    library, random = import_module(name), isinstance(search.start, Uniform)
    if name == "torchattacks":
        constants = {"eps": search.ball.eps, "alpha": search.alpha, "steps": search.steps}
        torchattacks_pgd: LibraryAttack = library.PGD(net, **constants, random_start=random)
        return torchattacks_pgd
    pgd = library.attacks.LinfPGD(
        abs_stepsize=search.alpha, steps=search.steps, random_start=random
    )

    def foolbox_pgd(x: Images, y: Labels) -> Images:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = library.PyTorchModel(net.eval(), bounds=(0, 1))
        x_adv: Images = pgd.run(model, x, y, epsilon=search.ball.eps)
        return x_adv

    return foolbox_pgd


def evaluate(
    net: nn.Module, x: Images, y: Labels, search: GradientAttack, library: LibraryAttack | None
) -> float:
    """Accuracy under attack."""
    with eval_mode(net):
        x_adv = library(x, y) if library else cross_entropy_attack(net, x, y, search)
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


def batches(
    images: ImageSet, batch_size: int, *, pad: int, flip: bool, workers: int
) -> Iterator[tuple[Images, Labels]]:
    """Batches of one epoch, on the CPU; torchvision pads, crops, flips and casts each image."""
    crop = transforms.RandomCrop(images.pixels.shape[-1], padding=pad)
    flips = [transforms.RandomHorizontalFlip()] if flip else []
    transform = transforms.Compose([transforms.ToPILImage(), crop, *flips, transforms.ToTensor()])
    pixels = images.pixels.permute(0, 2, 3, 1).cpu().numpy()
    examples: Any = list(zip(pixels, images.labels.tolist(), strict=True))
    loader: DataLoader[Any] = DataLoader(
        examples,
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        collate_fn=partial(_transform_batch, transform),
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
    return iter(loader)


def _transform_batch(transform: Callable[[Any], Tensor], batch: list[Any]) -> tuple[Images, Labels]:
    return torch.stack([transform(x) for x, _ in batch]), torch.tensor([y for _, y in batch])
