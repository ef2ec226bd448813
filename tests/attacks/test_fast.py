"""LIET, FGSM-PGI, NuAT and SORA against loops written from their formulas."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from energy_at.attacks import FGSMPGI, LIET, SORA, NuAT, Place, with_alpha
from energy_at.attacks.fast import WIDE
from energy_at.attacks.threat import L2, Linf
from energy_at.core.rng import ImageNoise
from tests.helpers.nets import TinyNet

EPS = 8 / 255
BALL, WIDER = Linf(EPS), Linf(2 * EPS)
CLASSES = 4
N, B = 12, 6  # images of the training set, and of a batch
ATTACKS = {
    "liet": LIET(BALL, classes=CLASSES),
    "fgsm_pgi": FGSMPGI(BALL),
    "nuat": NuAT(BALL),
    "sora": SORA(BALL),
}
attacks = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
ROUNDING = 1e-6


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def net():
    return TinyNet().double()  # a sign that rounds otherwise is another image


@pytest.fixture
def images():
    return torch.rand(N, 3, 8, 8, dtype=torch.double), torch.arange(N) % CLASSES


def gradient(net, x, y, targets=None):
    """Of the mean cross-entropy, by the image."""
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(net(x), y if targets is None else targets), x)
    return grad


def bounded(delta, eps, x):
    """Clipped to eps, then to images in [0, 1]."""
    return torch.minimum(torch.maximum(delta.clamp(-eps, eps), -x), 1 - x)


def uniform(like, low, high, generator):
    drawn = torch.empty_like(like).uniform_(-1, 1, generator=generator)
    return low + (high - low) * (drawn + 1) / 2


# What all of them promise


@attacks
def test_all_noise_comes_from_the_generator(attack, net, images):
    x, y = images
    before = torch.get_rng_state()
    first, again, other = (attack(net, x, y, generator=seeded(s)).x_adv for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@attacks
def test_leaves_network_and_batch_alone(attack, net, images):
    x, y = images
    net.train()
    before, same = deepcopy(net.state_dict()), x.clone()
    found = attack(net, x, y, keep_graph=True)
    assert found.start_logits.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert net.training
    assert all(m.training for m in net.modules())
    assert torch.equal(x, same)


@attacks
def test_images_stay_images_and_where_it_projects_in_the_ball(attack, net, images):
    x, y = images
    x[:2] = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    x_adv = attack(net, x, y, generator=seeded()).x_adv
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    most = 3 * EPS if isinstance(attack, SORA) else EPS
    assert (x_adv - x).abs().max() <= most + ROUNDING
    assert (x_adv - x).abs().max() > EPS * 0.9


@attacks
def test_other_balls_and_more_steps_are_refused(attack):
    with pytest.raises(ValueError, match=r"^ball must be an L-inf ball \(threat=linf\): .* got L2"):
        replace(attack, ball=L2(0.5))
    with pytest.raises(ValueError, match=r"^steps must be 1: the attack .* step, got 2"):
        replace(attack, steps=2)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("liet", {"every": 0}), ("liet", {"low": -0.1}), ("liet", {"high": 0.05}),
        ("liet", {"classes": 1}), ("fgsm_pgi", {"reset": 0}), ("fgsm_pgi", {"decay": -1.0}),
        ("nuat", {"weight": -1.0}), ("nuat", {"ramp_epochs": -1.0}), ("sora", {"rate": 0.0}),
        ("sora", {"alpha": 0.0}),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(name, wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must be "):
        replace(ATTACKS[name], **wrong)


@attacks
def test_a_smaller_ball_and_a_smaller_step(attack):
    times = 2.0 if isinstance(attack, SORA) else 1.0
    assert attack.step == pytest.approx(times * EPS)
    assert attack.scaled(0.5).step == pytest.approx(times * EPS / 2)
    weaker = with_alpha(attack, 0.5)
    assert (weaker.step, weaker.ball) == (pytest.approx(times * EPS / 2), BALL)
    assert weaker.scaled(0.5).step == pytest.approx(times * EPS / 4)


# LIET


def liet_by_hand(net, x, y, eps, generator):
    net = deepcopy(net).eval()
    grey = torch.full((CLASSES, 3, 8, 8), 0.5, dtype=x.dtype)
    information = eps * gradient(net, grey, torch.arange(CLASSES)).sign()
    net.train()
    entries = uniform(x, 0, 1, generator)
    noise = eps * uniform(x, -1, 1, generator) * (2 if eps > WIDE else 1)
    share = 0.1 + 0.4 * torch.rand(1, generator=generator, dtype=x.dtype)
    delta = information[y]
    delta[entries < share] = noise[entries < share]
    if torch.rand(1, generator=generator, dtype=x.dtype) < 0.5:
        delta = -delta
    begin = (x + delta).clamp(0, 1)
    x_adv = begin + eps * gradient(net, begin, y).sign()
    if eps <= WIDE:
        x_adv = x + (x_adv - x).clamp(-eps, eps)
    return begin, x_adv.clamp(0, 1)


@pytest.mark.parametrize("ball", [BALL, WIDER], ids=["8/255", "16/255"])
@pytest.mark.parametrize("seed", [0, 1, 3])  # both signs
def test_liet_is_its_formula(ball, seed, net, images):
    x, y = images
    begin, expected = liet_by_hand(net, x, y, ball.eps, seeded(seed))
    found = LIET(ball, classes=CLASSES)(net, x, y, generator=seeded(seed))
    torch.testing.assert_close(found.x_start, begin)
    torch.testing.assert_close(found.x_adv, expected)


def test_liet_looks_at_the_grey_image_in_every_twentieth_batch(net, images):
    x, y = images
    memory, attack, seen = {}, ATTACKS["liet"], []
    for batch in range(22):
        place = Place(torch.arange(N), N, batch=batch)
        attack(net, x, y, place=place, memory=memory, generator=seeded())
        seen.append(memory["label_signs"])
    assert len({id(signs) for signs in seen}) == 2
    assert seen[19] is seen[0]
    assert seen[20] is not seen[0]
    assert set(seen[0].unique().tolist()) <= {-1.0, 0.0, 1.0}


def test_liet_under_noise_for_each_image_draws_share_and_sign_for_each(net, images):
    x, y = images
    noise = [ImageNoise.of(range(i, j), 5) for i, j in ((0, N), (3, 7))]
    whole = ATTACKS["liet"](net.eval(), x, y, generator=noise[0]).x_start
    some = ATTACKS["liet"](net, x[3:7], y[3:7], generator=noise[1]).x_start
    assert torch.equal(whole[3:7], some)


# FGSM-PGI


class ByHand:
    """The loop of FGSM-PGI, with the perturbations of all images."""

    def __init__(self, eps, generator):
        self.eps = eps
        self.momentum = torch.zeros(N, 3, 8, 8, dtype=torch.double)
        self.delta = eps * uniform(self.momentum, -1, 1, generator).sign()

    def __call__(self, net, x, y, which):
        eps, kept = self.eps, self.delta[which]
        begin = (x + kept).clamp(0, 1)
        grad = gradient(net, begin, y)
        momentum = grad / grad.abs().sum() + 0.3 * self.momentum[which]
        following = bounded(kept + eps * momentum.sign(), eps, x)
        x_adv = x + bounded(kept + eps * grad.sign(), eps, x)
        self.delta[which], self.momentum[which] = following, momentum
        return begin, x_adv


def test_fgsm_pgi_is_its_formula_over_epochs(net, images):
    x, y = images
    x[0], x[1] = 0.0, 1.0
    slow, memory, attack = ByHand(EPS, seeded(1)), {}, FGSMPGI(BALL)
    for epoch in range(4):
        order = torch.randperm(N, generator=seeded(epoch))
        for batch in range(N // B):
            which = order[batch * B : (batch + 1) * B]
            crop = x[which].roll(epoch, dims=3)  # the perturbation does not move with the image
            begin, expected = slow(net, crop, y[which], which)
            place = Place(which, N, float(epoch), batch)
            found = attack(net, crop, y[which], place=place, memory=memory, generator=seeded(1))
            torch.testing.assert_close(found.x_start, begin)
            torch.testing.assert_close(found.x_adv, expected)
    torch.testing.assert_close(memory["delta"], slow.delta)
    torch.testing.assert_close(memory["momentum"], slow.momentum)


def test_fgsm_pgi_starts_again_in_the_first_batch_of_every_fortieth_epoch(net, images):
    x, y = images
    memory = {}
    for epoch, batch, corners in [(0, 0, True), (1, 0, False), (40, 1, False), (40, 0, True)]:
        kept = Place(torch.arange(B), N, epoch + batch / 2, batch)
        FGSMPGI(BALL)(net, x[:B], y[:B], place=kept, memory=memory, generator=seeded(epoch))
        others = memory["delta"][B:].clone()  # of no batch yet
        memory["delta"][B:] = 0.5 * others
        assert bool(others.abs().min() > 0.99 * EPS) == corners


def test_fgsm_pgi_keeps_two_fp32_numbers_for_each_pixel(net, images):
    memory = {}
    x, y = images
    place = Place(torch.arange(B), 1000)
    FGSMPGI(BALL)(net.float(), x[:B].float(), y[:B], place=place, memory=memory)
    size = sum(kept.numel() * kept.element_size() for kept in memory.values())
    assert size == 2 * 4 * 1000 * 3 * 8 * 8
    assert not any(kept.requires_grad for kept in memory.values())


def test_without_a_memory_nothing_is_remembered(net, images):
    x, y = images
    first, again = (FGSMPGI(BALL)(net, x, y, generator=seeded()).x_adv for _ in range(2))
    assert torch.equal(first, again)


# NuAT


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize(("epoch", "weight"), [(0.0, 0.0), (5.0, 2.0), (30.0, 4.0)])
def test_nuat_is_its_formula(batch, epoch, weight, net, images):
    x, y = images
    begin = (x + EPS / 2 * uniform(x, -1, 1, seeded()).sign()).clamp(0, 1).requires_grad_()
    logits = net(begin)
    loss = F.cross_entropy(logits, y)
    if batch == 1:
        loss = loss + weight * torch.linalg.svdvals(net(x).detach() - logits).sum() / N
    (grad,) = torch.autograd.grad(loss, begin)
    expected = x + bounded(begin.detach() + EPS * grad.sign() - x, EPS, x)
    place = Place(torch.arange(N), N, epoch, batch)
    found = NuAT(BALL, ramp_epochs=10)(net, x, y, place=place, generator=seeded())
    torch.testing.assert_close(found.x_start, begin.detach())
    torch.testing.assert_close(found.x_adv, expected)
    assert found.start_grad is None


# SORA


@pytest.mark.parametrize(
    ("align", "largest"),
    [(None, 2), (1.0, 2), (0.99, 2), (0.98, 2), (0.9, 0.4), (0.5, 0.08), (-1.0, 0.02)],
)
def test_sora_is_its_formula(align, largest, net, images):
    x, y = images
    memory = {} if align is None else {"pert_align": torch.tensor(align)}
    generator = seeded()
    begin = (x + EPS * uniform(x, -1, 1, generator)).clamp(0, 1)
    step = EPS * largest * uniform(x, 0, 1, generator)
    expected = (begin + step * gradient(net, begin, y).sign()).clamp(0, 1)
    found = SORA(BALL)(net, x, y, memory=memory, generator=seeded())
    torch.testing.assert_close(found.x_start, begin)
    torch.testing.assert_close(found.x_adv, expected, rtol=0, atol=1e-6)


# Smoothed labels


@attacks
def test_smoothed_labels_are_what_the_cross_entropy_goes_by(attack, images):
    torch.manual_seed(3)
    net, (x, y) = TinyNet().double().eval(), images
    targets = F.one_hot((y + 1) % CLASSES, CLASSES).double()
    soft = attack(net, x, y, targets=targets, generator=seeded())
    if not isinstance(attack, LIET):  # whose start has the label too
        other = attack(net, x, (y + 1) % CLASSES, generator=seeded())
        assert torch.equal(soft.x_adv, other.x_adv)
    assert not torch.equal(soft.x_adv, attack(net, x, y, generator=seeded()).x_adv)
