"""GradAlign, ELLE, PertAlign: values image by image, finite differences, memory of ELLE-A."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import Callback
from torch import nn

from energy_at.attacks import fgsm, pgd
from energy_at.attacks.threat import L2, Linf
from energy_at.objectives import (
    ELLE,
    AdaptiveELLE,
    AdversarialCrossEntropy,
    GradAlign,
    Objective,
    Vicinity,
    Weighted,
    pert_align,
)
from energy_at.runs.folder import RunFolder
from energy_at.training import AdversarialTraining
from tests.helpers.running import TINY_BN, fitted, prepared, states_equal

EPS, N, CLASSES, STEP = 0.2, 5, 3, 1e-5
BALL = Linf(EPS)
BALLS = pytest.mark.parametrize("ball", [BALL, L2(1.0)], ids=["linf", "l2"])


@pytest.fixture
def smooth():
    """A small float64 network without kinks and without batch norm; images and labels."""
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    ).double()
    with torch.no_grad():
        net[0].weight *= 3
    return net, torch.rand(N, 1, 4, 4, dtype=torch.double), torch.arange(N) % CLASSES


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def uniform(x, generator):
    return EPS * torch.empty_like(x).uniform_(-1, 1, generator=generator)


def parameter_gradient(value, net):
    grads = torch.autograd.grad(value, list(net.parameters()), allow_unused=True)
    return [
        torch.zeros_like(p) if g is None else g
        for p, g in zip(net.parameters(), grads, strict=True)
    ]


def finite_differences(net, value):
    """Central differences of ``value()`` in every weight."""
    slopes = []
    for parameter in net.parameters():
        flat, found = parameter.data.view(-1), torch.zeros_like(parameter.data)
        for i in range(len(flat)):
            weight = flat[i].item()
            ends = []
            for end in (weight + STEP, weight - STEP):
                flat[i] = end
                ends.append(value())
            flat[i] = weight
            found.view(-1)[i] = (ends[0] - ends[1]) / (2 * STEP)
        slopes.append(found)
    return slopes


def assert_all_close(ours, theirs, **tolerance):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def assert_true_gradient(value, net, slow):
    ours = parameter_gradient(value, net)
    assert any(g.any() for g in ours)
    assert_all_close(ours, finite_differences(net, slow), rtol=1e-5, atol=1e-8)


# GradAlign


def image_gradients(net, x, y):
    """Of the cross-entropy, each image on its own, as flat lists."""
    found = []
    for image, label in zip(x, y, strict=True):
        image = image[None].clone().requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(net(image), label[None]), image)
        found.append(grad.flatten().tolist())
    return found


def misaligned(a, b):
    dot = sum(p * q for p, q in zip(a, b, strict=True))
    return 1 - dot / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b))


def slow_gradalign(net, x, y, clean=None):
    """The penalty of each image, of the noise of ``seeded()``."""
    noisy = x + uniform(x, seeded())
    clean = clean or image_gradients(net, x, y)
    pairs = zip(clean, image_gradients(net, noisy, y), strict=True)
    return [misaligned(a, b) for a, b in pairs]


@BALLS
def test_the_gradients_of_a_linear_network_of_two_classes_are_aligned(ball):
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).double()
    x, y = torch.rand(6, 3, 4, 4, dtype=torch.double), torch.arange(6) % 2
    penalty = GradAlign(ball).probe(Vicinity(net, x, y, seeded()))
    torch.testing.assert_close(penalty, torch.zeros_like(penalty), rtol=0, atol=1e-14)


def test_opposite_gradients_have_a_penalty_of_two(smooth):
    _, x, y = smooth
    linear = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
    y = y % 2
    against = -torch.tensor(image_gradients(linear, x, y)).view_as(x)
    penalty = GradAlign(BALL).probe(Vicinity(linear, x, y, seeded(), against))
    torch.testing.assert_close(penalty, torch.full_like(penalty, 2.0))


@pytest.mark.parametrize("detach_clean", [True, False])
def test_gradalign_is_its_formula_image_by_image(detach_clean, smooth):
    net, x, y = smooth
    penalty = GradAlign(BALL, detach_clean).probe(Vicinity(net, x, y, seeded()))
    assert penalty.tolist() == pytest.approx(slow_gradalign(net, x, y), rel=1e-9)
    assert penalty.min() > 1e-4


@pytest.mark.parametrize("detach_clean", [True, False])
def test_gradalign_trains_the_weights_by_its_true_gradient(detach_clean, smooth):
    net, x, y = smooth
    held = image_gradients(net, x, y) if detach_clean else None
    penalty = GradAlign(BALL, detach_clean).probe(Vicinity(net, x, y, seeded())).mean()
    assert_true_gradient(penalty, net, lambda: sum(slow_gradalign(net, x, y, held)) / N)


def test_the_gradient_that_an_attack_hands_in_serves_as_the_clean_one(smooth):
    net, x, y = smooth
    found = fgsm(BALL)(net, x, y)
    factors = torch.tensor([1.0, 1e-3, 7.0, 1e4, 0.2]).double()[:, None, None, None]
    own, handed = (
        GradAlign(BALL).probe(Vicinity(net, x, y, seeded(), grad))
        for grad in (None, factors * found.clean_grad)
    )
    torch.testing.assert_close(handed, own)
    assert_all_close(
        *(parameter_gradient(penalty.mean(), net) for penalty in (handed, own)),
        rtol=1e-9,
        atol=1e-12,
    )


def test_a_gradient_that_is_trained_is_not_taken_from_the_attack(smooth):
    net, x, y = smooth
    own, handed = (
        GradAlign(BALL, detach_clean=False).probe(Vicinity(net, x, y, seeded(), grad))
        for grad in (None, torch.ones_like(x))
    )
    assert torch.equal(handed, own)


@pytest.fixture
def confident():
    """A network so sure of class 0 that the gradient of its loss is 0."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    net[1].bias.data = torch.tensor([1e4, 0.0])
    return net


@pytest.mark.parametrize("detach_clean", [True, False])
@pytest.mark.parametrize("clean_grad", [None, torch.ones(4, 1, 4, 4), torch.zeros(4, 1, 4, 4)])
def test_a_gradient_that_vanishes_has_no_penalty_and_trains_nothing(
    detach_clean, clean_grad, confident
):
    y = torch.zeros(4, dtype=torch.long)
    vicinity = Vicinity(confident, torch.rand(4, 1, 4, 4), y, seeded(), clean_grad)
    penalty = GradAlign(BALL, detach_clean).probe(vicinity)
    assert torch.equal(penalty, torch.zeros(4))
    assert not any(g.any() for g in parameter_gradient(penalty.sum(), confident))


def test_an_image_whose_gradient_vanishes_leaves_the_others_alone(smooth):
    net, x, y = smooth
    clean = fgsm(BALL)(net, x, y).clean_grad
    some = clean.clone()
    some[2] = 0
    others = torch.arange(N) != 2
    whole, partly = (
        GradAlign(BALL).probe(Vicinity(net, x, y, seeded(), grad)) for grad in (clean, some)
    )
    assert partly[2] == 0
    assert torch.equal(partly[others], whole[others])
    assert_all_close(
        parameter_gradient(partly.sum(), net), parameter_gradient(whole[others].sum(), net)
    )


@pytest.mark.parametrize("detach_clean", [True, False])
def test_tiny_gradients_still_have_a_direction(detach_clean, smooth):
    net, x, y = smooth
    net[-1].weight.data *= 1e-25
    net[-1].bias.data *= 1e-25
    single = deepcopy(net).float()
    noise = BALL.sample(x.float(), seeded())
    images = x.float() + noise
    assert 0 < max(map(abs, image_gradients(single, images, y)[0])) < 1e-24
    penalty = GradAlign(BALL, detach_clean).probe(Vicinity(single, x.float(), y, seeded()))
    exact = [
        misaligned(a, b)
        for a, b in zip(
            image_gradients(net, x, y), image_gradients(net, images.double(), y), strict=True
        )
    ]
    assert penalty.tolist() == pytest.approx(exact, abs=1e-5)
    assert all(g.isfinite().all() for g in parameter_gradient(penalty.mean(), single))


# ELLE


def quadratic(x):
    """Two logits whose cross-entropy to the first is ``1 + ||x||^2``."""
    loss = 1 + x.square().sum((1, 2, 3))
    return torch.stack([torch.zeros_like(loss), loss.expm1().log()], 1)


def affine(x):
    """Two logits whose cross-entropy to the first is affine in the image."""
    slope = torch.linspace(-0.1, 0.2, x[0].numel(), dtype=x.dtype).view_as(x[0])
    loss = 1 + (x * slope).sum((1, 2, 3))
    return torch.stack([torch.zeros_like(loss), loss.expm1().log()], 1)


def points(x, generator):
    """``a``, ``b``, and where ``c`` lies between them."""
    a, b = x + uniform(x, generator), x + uniform(x, generator)
    return a, b, torch.rand(len(x), dtype=x.dtype, generator=generator)


def slow_elle(net, x, y):
    """The squared error of each image, of the points of ``seeded()``."""
    found = []
    for a, b, t, label in zip(*points(x, seeded()), y, strict=True):
        at_a, at_b, at_c = (
            F.cross_entropy(net(image[None]), label[None]).item()
            for image in (a, b, (1 - t) * a + t * b)
        )
        found.append((at_c - (1 - t.item()) * at_a - t.item() * at_b) ** 2)
    return found


@BALLS
def test_a_loss_that_is_linear_has_no_error(ball):
    x, y = torch.rand(6, 1, 4, 4, dtype=torch.double), torch.zeros(6, dtype=torch.long)
    error = ELLE(ball).probe(Vicinity(affine, x, y, seeded()))
    assert error.max() < 1e-28
    assert ELLE(ball).probe(Vicinity(quadratic, x, y, seeded())).min() > 1e-28


def test_the_error_of_a_quadratic_loss_worked_out_by_hand():
    # (1 - t) |a|^2 + t |b|^2 - |(1 - t) a + t b|^2 = t (1 - t) |a - b|^2
    x, y = torch.rand(6, 1, 4, 4, dtype=torch.double), torch.zeros(6, dtype=torch.long)
    a, b, t = points(x, seeded())
    expected = (t * (1 - t) * (a - b).square().sum((1, 2, 3))).square()
    torch.testing.assert_close(ELLE(BALL).probe(Vicinity(quadratic, x, y, seeded())), expected)


def test_elle_is_its_formula_image_by_image(smooth):
    net, x, y = smooth
    error = ELLE(BALL).probe(Vicinity(net, x, y, seeded()))
    assert error.tolist() == pytest.approx(slow_elle(net, x, y), rel=1e-9)
    assert error.min() > 1e-12


def test_elle_trains_the_weights_by_its_true_gradient(smooth):
    net, x, y = smooth
    error = ELLE(BALL).probe(Vicinity(net, x, y, seeded())).mean() * 1e4
    assert_true_gradient(error, net, lambda: 1e4 * sum(slow_elle(net, x, y)) / N)


@pytest.mark.parametrize("probe", [GradAlign(BALL), ELLE(BALL)])
def test_the_generator_alone_decides_on_the_points(probe, smooth):
    net, x, y = smooth
    first, again, other = (probe.probe(Vicinity(net, x, y, seeded(s))) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not (first == other).any()


@pytest.mark.parametrize(
    "probe", [GradAlign(BALL), GradAlign(BALL, detach_clean=False), ELLE(BALL)]
)
@pytest.mark.parametrize("training", [True, False])
def test_a_probe_leaves_the_network_as_it_was(probe, training, net, batch):
    net.train(training)
    net.layers[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    probe.probe(Vicinity(net, *batch, seeded()))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes
    assert all(p.grad is None for p in net.parameters())


# ELLE-A


# 3.8 lies more than two standard deviations above the mean of [1, 2, 3], 2 more than any above [1].
ERRORS = [1, 2, 3, 3.8, *[2] * 8, 9, *[2] * 8, 6, *[2] * 8]


def probed(term, errors):
    """The penalties of steps whose errors are these, up to a factor."""
    x, y = torch.full((6, 1, 4, 4), 0.5).double(), torch.zeros(6, dtype=torch.long)
    models = [lambda image, size=error**0.25: quadratic(size * image) for error in errors]
    return [term.probe(Vicinity(model, x, y, seeded())) for model in models]


@pytest.mark.parametrize(
    ("sensitivity", "decay", "jumps"),
    [(2.0, 0.99, {3, 12, 21}), (3.0, 1.0, {12}), (1.0, 0.5, {3, 12, 21})],
)
def test_the_weight_jumps_when_the_error_stands_out_and_decays_else(sensitivity, decay, jumps):
    past, factor, factors, stood_out = [], 0.0, [], set()
    plain = probed(ELLE(BALL), ERRORS)
    for number, penalty in enumerate(plain):
        factors.append(factor)
        error = penalty.mean().item()
        factor *= decay
        if len(past) > 2 and error > np.mean(past) + sensitivity * np.std(past):
            factor = 1.0
            stood_out.add(number)
        past.append(error)
    assert stood_out == jumps
    adaptive = probed(AdaptiveELLE(BALL, sensitivity, decay), ERRORS)
    for ours, share, penalty in zip(adaptive, factors, plain, strict=True):
        torch.testing.assert_close(ours, share * penalty, rtol=1e-12, atol=0)


def test_the_weight_is_no_part_of_the_gradient(smooth):
    net, x, y = smooth
    adaptive = AdaptiveELLE(BALL)
    adaptive.load_state_dict(adaptive.state_dict() | {"factor": torch.tensor(0.25).double()})
    ours, plain = (
        parameter_gradient(probe.probe(Vicinity(net, x, y, seeded())).sum(), net)
        for probe in (adaptive, ELLE(BALL))
    )
    assert_all_close(ours, [0.25 * g for g in plain])


def test_remembered_errors_go_on_as_if_never_interrupted():
    whole, first, second = (AdaptiveELLE(BALL) for _ in range(3))
    expected = probed(whole, ERRORS)
    probed(first, ERRORS[:15])
    second.load_state_dict(first.state_dict())
    probed(first, ERRORS[15:])
    assert all(map(torch.equal, probed(second, ERRORS[15:]), expected[15:]))
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize(
    "setting",
    [{"sensitivity": s} for s in (0.0, -1.0, math.nan)]
    + [{"decay": d} for d in (-0.1, 1.1, math.nan)],
)
def test_settings_of_elle_a_without_meaning_are_refused(setting):
    with pytest.raises(ValueError, match=f"^{next(iter(setting))} must be"):
        AdaptiveELLE(BALL, **setting)


# In training


@pytest.mark.parametrize("bn_mode", ["batch", "eval"])
@pytest.mark.parametrize("detach_clean", [True, False])
@pytest.mark.parametrize("attack", [fgsm(BALL), pgd(BALL, steps=2)], ids=["fgsm", "pgd"])
def test_a_step_with_gradalign_has_the_gradient_written_out(
    attack, detach_clean, bn_mode, net, batch
):
    net, (x, y) = net.double(), batch
    x = x.double()
    terms = {
        "ce": Weighted(AdversarialCrossEntropy()),
        "gradalign": Weighted(GradAlign(BALL, detach_clean), 0.7),
    }
    training = AdversarialTraining(
        net, attack, Objective(terms), val_attacks={"pgd": pgd(BALL)}, bn_mode=bn_mode
    )
    slow = deepcopy(net).train(bn_mode == "batch")
    training.training_step((x, y), 0)["loss"].backward()

    generator = training._noise(x.device, 0, 0)
    x_adv = attack(slow, x, y, generator=generator).x_adv
    slow.train()
    directions = []
    for image in (x, x + uniform(x, generator)):
        image = image.requires_grad_()
        loss = F.cross_entropy(slow(image), y)
        (grad,) = torch.autograd.grad(loss, image, create_graph=True)
        directions.append(grad.flatten(1))
    clean, noisy = directions
    cosine = F.cosine_similarity(clean.detach() if detach_clean else clean, noisy)
    loss = F.cross_entropy(slow(x_adv), y) + 0.7 * (1 - cosine).mean()
    assert_all_close((p.grad for p in net.parameters()), parameter_gradient(loss, slow))


class Unplugged(Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 9:
            raise KeyError("unplugged")


RUN = (
    *(*TINY_BN, "reg=elle_a", "reg.sensitivity=0.5", "attack=rs_fgsm", "trainer.max_epochs=2"),
    *("dataset.batch_size=64", "callbacks.last.every_n_steps=1"),
)


@pytest.mark.slow
def test_a_resumed_run_remembers_the_errors_of_elle_a(tmp_path):
    whole = fitted(tmp_path / "whole", *RUN)
    assert 0 < whole.module.objective.state_dict()["elle"]["factor"] <= 1
    broken = prepared(tmp_path, *RUN)
    broken.trainer.callbacks.insert(0, Unplugged())
    with pytest.raises(KeyError, match="unplugged"):
        broken.trainer.fit(broken.module, broken.data)
    again = fitted(tmp_path, *RUN, checkpoint=RunFolder(tmp_path).checkpoint())
    assert again.trainer.global_step == whole.trainer.global_step == 14
    assert states_equal(again.module, whole.module)
    ours, theirs = (r.module.objective.state_dict()["elle"] for r in (again, whole))
    assert ours == theirs


@pytest.mark.parametrize("detach_clean", [True, False])
@pytest.mark.parametrize("margin", [80.0, 92.0, 96.0, 100.0, 104.0])
def test_nearly_vanishing_gradients_train_by_finite_ones(margin, detach_clean, smooth):
    net, x, y = smooth
    net = net.float()
    net[-1].bias.data[0] += margin
    vicinity = Vicinity(net, x.float(), torch.zeros_like(y), seeded())
    penalty = GradAlign(BALL, detach_clean).probe(vicinity)
    assert all(g.isfinite().all() for g in parameter_gradient(penalty.mean(), net))


# PertAlign


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e-25, 1e-36])
def test_pert_align_is_a_cosine_of_any_scale(scale):
    torch.manual_seed(0)
    a, b = torch.randn(2, 5, 3, 4, 4)
    expected = [float((p * q).sum() / (p.norm() * q.norm())) for p, q in zip(a, b, strict=True)]
    assert pert_align(scale * a, b).tolist() == pytest.approx(expected, abs=1e-5)
    assert pert_align(scale * a, scale * a).tolist() == pytest.approx([1.0] * 5)
    assert pert_align(scale * a, -b / scale).tolist() == pytest.approx(
        [-c for c in expected], abs=1e-5
    )


def test_pert_align_of_a_gradient_that_vanishes_is_zero():
    a = torch.rand(2, 3, 4, 4)
    assert pert_align(a, torch.zeros_like(a)).tolist() == [0.0, 0.0]
    assert pert_align(torch.zeros_like(a), a).tolist() == [0.0, 0.0]
