"""Attacks against independent references: foolbox, and the published formulas written out slowly.

In double precision, because a gradient that rounds to the other side of 0 flips a sign step.
"""

from functools import partial

import foolbox
import pytest
import torch
import torch.nn.functional as F

from energy_at.attacks import (
    GradientAttack,
    LibraryAttack,
    WorstCase,
    fgsm,
    n_fgsm,
    pgd,
    restarted_pgd,
    rs_fgsm,
    trades,
)
from energy_at.attacks import autoattack as ensemble
from energy_at.attacks.registry import FROM_LIBRARY, OWN, column_of, named_attack
from energy_at.attacks.threat import L2, Linf
from energy_at.core.extras import install
from energy_at.core.names import ATTACKS, NORMS
from tests.helpers.nets import TinyNet

EPS, EPS_L2 = 8 / 255, 0.5


@pytest.fixture
def victim():
    """A network in evaluation mode, with running statistics of its own, its images and labels."""
    net = TinyNet().double()
    x = torch.rand(6, 3, 8, 8, dtype=torch.double)
    for _ in range(20):
        net(torch.rand(32, 3, 8, 8, dtype=torch.double))
    return net.eval(), x, torch.arange(6) % 4


def noise(seed=0):
    return torch.Generator().manual_seed(seed)


def assert_same(x_adv, expected, x):
    assert not torch.equal(x_adv, x)
    torch.testing.assert_close(x_adv, expected, rtol=0, atol=1e-6)


def input_gradient(loss, x):
    """The gradient that ``backward`` leaves on one image."""
    x = x.clone().requires_grad_()
    loss(x).backward()
    return x.grad


def cross_entropy(net, y):
    return lambda x: F.cross_entropy(net(x), y)


def one_by_one(x, y):
    """Images and labels as batches of one."""
    return [(x[i : i + 1], y[i : i + 1]) for i in range(len(x))]


# foolbox


def theirs(attack, victim, eps):
    net, x, y = victim
    return attack.run(foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu"), x, y, epsilon=eps)


def test_fgsm_is_that_of_foolbox(victim):
    expected = theirs(foolbox.attacks.FGSM(), victim, EPS)
    assert_same(fgsm(Linf(EPS))(*victim).x_adv, expected, victim[1])


def test_l2_fgsm_is_the_fast_gradient_method_of_foolbox(victim):
    expected = theirs(foolbox.attacks.FGM(), victim, EPS_L2)
    assert_same(fgsm(L2(EPS_L2))(*victim).x_adv, expected, victim[1])


@pytest.mark.parametrize("alpha", [EPS / 4, EPS, 3 * EPS])
@pytest.mark.parametrize("steps", [1, 10])
def test_linf_pgd_is_that_of_foolbox(victim, steps, alpha):
    attack = foolbox.attacks.LinfPGD(abs_stepsize=alpha, steps=steps, random_start=False)
    ours = GradientAttack(Linf(EPS), alpha=alpha, steps=steps)
    assert_same(ours(*victim).x_adv, theirs(attack, victim, EPS), victim[1])


@pytest.mark.parametrize("alpha", [EPS_L2 / 4, EPS_L2, 3 * EPS_L2])
@pytest.mark.parametrize("steps", [1, 10])
def test_l2_pgd_is_that_of_foolbox(victim, steps, alpha):
    attack = foolbox.attacks.L2PGD(abs_stepsize=alpha, steps=steps, random_start=False)
    ours = GradientAttack(L2(EPS_L2), alpha=alpha, steps=steps)
    assert_same(ours(*victim).x_adv, theirs(attack, victim, EPS_L2), victim[1])


# The published formulas, image by image


def test_rs_fgsm_is_that_of_wong_et_al(victim):
    # Fast is better than free, Algorithm 3: step 1.25 eps; like their code, start from an image.
    net, x, y = victim
    eta = torch.empty_like(x).uniform_(-EPS, EPS, generator=noise())
    expected = []
    for (image, label), start in zip(one_by_one(x, y), eta.split(1), strict=True):
        start = torch.clamp(image + start, 0, 1) - image
        grad = input_gradient(cross_entropy(net, label), image + start)
        delta = torch.clamp(start + 1.25 * EPS * torch.sign(grad), -EPS, EPS)
        expected.append(torch.clamp(image + delta, 0, 1))
    assert_same(rs_fgsm(Linf(EPS))(*victim, generator=noise()).x_adv, torch.cat(expected), x)


def test_n_fgsm_is_that_of_de_jorge_et_al(victim):
    # Make some noise, Algorithm 1: noise of 2 eps, no clipping but to pixels.
    net, x, y = victim
    eta = torch.empty_like(x).uniform_(-2 * EPS, 2 * EPS, generator=noise())
    expected = []
    for (image, label), start in zip(one_by_one(x, y), eta.split(1), strict=True):
        noisy = torch.clamp(image + start, 0, 1)
        grad = input_gradient(cross_entropy(net, label), noisy)
        expected.append(torch.clamp(noisy + EPS * torch.sign(grad), 0, 1))
    assert_same(n_fgsm(Linf(EPS))(*victim, generator=noise()).x_adv, torch.cat(expected), x)


def test_pgd_is_that_of_madry_et_al(victim):
    net, x, y = victim
    eta = torch.empty_like(x).uniform_(-EPS, EPS, generator=noise())
    expected = []
    for (image, label), start in zip(one_by_one(x, y), eta.split(1), strict=True):
        x_adv = torch.clamp(image + start, 0, 1)
        for _ in range(10):
            x_adv = x_adv + 2 / 255 * torch.sign(input_gradient(cross_entropy(net, label), x_adv))
            x_adv = torch.min(torch.max(x_adv, image - EPS), image + EPS)
            x_adv = torch.clamp(x_adv, 0, 1)
        expected.append(x_adv)
    x_adv = pgd(Linf(EPS), alpha=2 / 255, steps=10)(*victim, generator=noise()).x_adv
    assert_same(x_adv, torch.cat(expected), x)


def test_pgd_from_normal_noise_is_that_of_wang_et_al(victim):
    """The attack of MART's code, which does not clip its start to pixels."""
    net, x, y = victim[0], 0.006 + 0.988 * victim[1], victim[2]
    x_adv = x + 0.001 * torch.randn(x.shape, dtype=x.dtype, generator=noise())
    for _ in range(10):
        x_adv = x_adv + 2 / 255 * torch.sign(input_gradient(cross_entropy(net, y), x_adv))
        x_adv = torch.min(torch.max(x_adv, x - EPS), x + EPS).clamp(0, 1)
    attack = pgd(Linf(EPS), alpha=2 / 255, steps=10, std=0.001)
    assert_same(attack(net, x, y, generator=noise()).x_adv, x_adv, x)


def divergence(net, image):
    """The inner loss of TRADES as published: KLDivLoss of the network's two predictions."""
    p = F.softmax(net(image), dim=1).detach()
    return lambda x_adv: F.kl_div(F.log_softmax(net(x_adv), dim=1), p, reduction="sum")


def test_trades_is_that_of_zhang_et_al(victim):
    # Their code does not clip the start to pixels, so keep its noise of 0.001 inside them.
    net, x, y = victim[0], 0.006 + 0.988 * victim[1], victim[2]
    start = x + 0.001 * torch.randn(x.shape, dtype=x.dtype, generator=noise())
    expected = []
    for image, x_adv in zip(x.split(1), start.split(1), strict=True):
        for _ in range(10):
            grad = input_gradient(divergence(net, image), x_adv)
            x_adv = x_adv + 2 / 255 * torch.sign(grad)
            x_adv = torch.min(torch.max(x_adv, image - EPS), image + EPS)
            x_adv = torch.clamp(x_adv, 0, 1)
        expected.append(x_adv)
    x_adv = trades(Linf(EPS), alpha=2 / 255)(net, x, y, generator=noise()).x_adv
    assert_same(x_adv, torch.cat(expected), x)
    assert ((x_adv == 0) | (x_adv == 1)).any()  # the clipping at the end was at work


def test_l2_trades_is_that_of_zhang_et_al(victim):
    # Their code clips to pixels before it projects, so keep the ball inside the pixel range.
    net, x, y = victim[0], 0.5 + 0.1 * (victim[1] - 0.5), victim[2]
    eps, steps = 0.3, 5
    start = 0.001 * torch.randn(x.shape, dtype=x.dtype, generator=noise())
    expected = []
    for image, delta in zip(x.split(1), start.split(1), strict=True):
        for _ in range(steps):
            grad = input_gradient(divergence(net, image), image + delta)
            delta = delta + 2 * eps / steps * grad / torch.linalg.norm(grad)
            delta = delta.renorm(p=2, dim=0, maxnorm=eps)
        expected.append(image + delta)
    attack = trades(L2(eps), alpha=2 * eps / steps, steps=steps)
    assert_same(attack(net, x, y, generator=noise()).x_adv, torch.cat(expected), x)


# Attacks by name


SEED, STEPS, QUERIES = 7, 5, 60
balls = pytest.mark.parametrize("ball", [Linf(0.07), L2(0.4)], ids=["linf", "l2"])
short = partial(LibraryAttack, steps=5, queries=30)


def seeded(seed=SEED):
    return torch.Generator().manual_seed(seed)


# What is refused


@pytest.fixture
def _without_the_library(monkeypatch):
    monkeypatch.setattr(ensemble, "find_spec", lambda _: None)


@pytest.mark.usefixtures("_without_the_library")
@pytest.mark.parametrize("name", FROM_LIBRARY)
def test_without_the_library_its_attacks_say_how_to_install_it(name):
    with pytest.raises(ImportError) as refused:
        named_attack(name, Linf(0.1))
    line = f"{name} needs the AutoAttack library: {install('autoattack')}"
    assert str(refused.value) == line


@pytest.mark.usefixtures("_without_the_library")
@pytest.mark.parametrize("name", OWN)
def test_without_the_library_every_other_attack_is_there(name, net, batch):
    x, y = batch
    assert not torch.equal(named_attack(name, Linf(0.1))(net, x, y).x_adv, x)


def test_an_attack_that_nobody_knows_is_refused_with_those_that_are():
    known = r"^name must be fgsm, .* or autoattack \(did you mean fgsm\?\), got 'fgms'$"
    with pytest.raises(ValueError, match=known):
        named_attack("fgms", Linf(0.1))


@pytest.mark.parametrize("name", OWN | FROM_LIBRARY)
@balls
def test_every_named_attack_fits_both_norms(name, ball, net, batch):
    attack = named_attack(name, ball, **({"steps": 2} if name != "square" else {"queries": 5}))
    if isinstance(attack, WorstCase):
        attack = WorstCase([short(ball, part.name, steps=2, queries=5) for part in attack.attacks])
    x, y = batch
    delta = attack(net.eval(), x, y, generator=seeded()).x_adv - x
    radius = delta.flatten(1).norm(p=2 if isinstance(ball, L2) else torch.inf, dim=1)
    assert radius.max() <= ball.eps * (1 + 1e-5)


def test_step_sizes_follow_the_radius_as_published():
    ball = Linf(0.1)
    sizes = [make(ball).alpha for make in (fgsm, rs_fgsm, n_fgsm, pgd, trades)]
    assert sizes == pytest.approx([0.1, 0.125, 0.1, 0.025, 0.025])
    assert rs_fgsm(ball, alpha=0.03).alpha == 0.03


@pytest.mark.parametrize(
    ("name", "attack", "column"),
    [
        ("fgsm", fgsm(Linf(EPS)), "fgsm"),
        ("pgd", pgd(Linf(EPS)), "pgd10"),
        ("pgd", pgd(Linf(EPS), steps=1), "pgd1"),
        ("pgd", pgd(Linf(EPS), steps=20, restarts=3), "pgd20x3"),
        ("pgd", restarted_pgd(Linf(EPS)), "pgd50x10"),
        ("pgd", restarted_pgd(Linf(EPS), steps=20, restarts=1), "pgd20"),
        ("trades", trades(Linf(EPS), steps=7), "trades7"),
        ("mine", pgd(Linf(EPS)), "mine"),
    ],
)
def test_the_column_of_an_iterated_attack_carries_its_steps_and_restarts(name, attack, column):
    assert column_of(name, attack) == column


def test_names_that_are_checked_without_torch_are_those_of_the_attacks():
    assert [*ATTACKS] == [*(OWN | FROM_LIBRARY)]
    assert NORMS == ("linf", "l2")
