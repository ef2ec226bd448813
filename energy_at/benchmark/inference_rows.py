"""Rows of evaluation and sampling: the network in evaluation mode, gradients of its input."""

import torch
from torch import nn

from energy_at.attacks import GradientAttack, pgd
from energy_at.benchmark import reference as published
from energy_at.benchmark.libraries import LIBRARIES, library_attack
from energy_at.benchmark.rows import Clock, Loop, Row, endless
from energy_at.benchmark.setting import Setting, random_images
from energy_at.config.build import make
from energy_at.core.rng import CountedNoise
from energy_at.core.types import Images, Labels
from energy_at.data import ImageSet, as_floats
from energy_at.evaluation.robustness import Exam
from energy_at.models.compile import compile_net
from energy_at.models.modes import full_precision, no_graph
from energy_at.models.tiled import Tiled, tile_of
from energy_at.sampling import Chains, Langevin, Unguided, generate


def evaluation_row(name: str, precision: str, setting: Setting, clock: Clock) -> Row | None:
    """A row of an evaluation by PGD, which is in fp32; ``None`` if it does not do this work.

    The labels are the network's own predictions, so that every image is attacked. One restart, so
    that nothing is gained by leaving out images that are broken: that gain comes on top.
    """
    if precision != "fp32":
        return None
    ours = name not in ("reference", *LIBRARIES)
    net, images = _classified(setting, ours=ours)
    attack = pgd(make(setting.config.threat.ball), steps=setting.attack_steps)
    assert isinstance(attack, GradientAttack)
    by_library = library_attack(name, net, attack) if name in LIBRARIES else None
    exam = Exam(images, batch_size=len(images), channels_last=ours)

    def step(x: Images, y: Labels) -> None:
        if name == "bare":
            with full_precision(x.device.type), no_graph():
                net(attack(net, x, y).x_adv)
        elif name == "full":
            exam.accuracies(net, {"pgd": attack})
        else:
            published.evaluate(net, x, y, attack, by_library)

    batch = as_floats(images.pixels, channels_last=ours), images.labels
    return Loop(step, endless([batch]), setting.steps, setting.device, clock)


def sampling_row(name: str, precision: str, setting: Setting, clock: Clock) -> Row | None:
    """A row of sampling without guidance; ``None`` if it does not do this work."""
    if name in LIBRARIES or (name == "reference" and precision != "fp32"):
        return None
    ours = name != "reference"
    net, images = _classified(setting, ours=ours)
    sampler = Langevin(steps=setting.sampler_steps, precision=precision)
    seen = Tiled(net, tile_of(setting.device)) if name == "full" else net

    def step(x: Images, y: Labels) -> None:
        if name == "reference":
            published.sample(net, x, y, steps=sampler.steps, step_size=sampler.step_size)
        elif name == "full":
            list(generate(seen, sampler, Unguided(), [_chains(x, y)], len(x)))
        else:
            chains = _chains(x, y)
            while len(chains):
                chains, _, _ = sampler.advance(net, chains, Unguided())

    batch = as_floats(images.pixels, channels_last=ours), images.labels
    return Loop(step, endless([batch]), setting.steps, setting.device, clock)


def _chains(x: Images, y: Labels) -> Chains:
    number = torch.arange(len(y), device=y.device)
    return Chains.begun(number, y, x, torch.zeros(len(y), device=y.device), CountedNoise(number))


def _classified(setting: Setting, *, ours: bool) -> tuple[nn.Module, ImageSet]:
    """An untrained network in evaluation mode, and a batch of images with its predictions."""
    cfg = setting.config
    torch.manual_seed(cfg.seed)
    kind = torch.channels_last if ours else torch.contiguous_format
    net = make(cfg.model).to(setting.device, memory_format=kind).eval()
    data = cfg.dataset
    images, _ = random_images(
        channels=data.channels, size=data.size, classes=data.classes, n=setting.batch_size
    )
    images = images.first(setting.batch_size).to(setting.device)
    with torch.no_grad():
        labels = net(as_floats(images.pixels, ours)).argmax(1)
    if ours and (mode := cfg.training.compile) is not None:
        compile_net(net.requires_grad_(False), mode)
    return net, ImageSet(images.pixels, labels)
