from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import cycle

import foolbox
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from energy_at.attacks import (
    Attack,
    GradientAttack,
    WorstCase,
    cw,
    fgsm,
    n_fgsm,
    pgd,
    rs_fgsm,
    targeted,
    trades,
)
from energy_at.attacks.gradient import (
    Gaussian,
    ReachTarget,
    Uniform,
    leave_clean_prediction,
    misclassify,
    widen_margin,
)
from energy_at.attacks.threat import L2, Linf
from tests.helpers.nets import TinyNet

EPS = 8 / 255
BALLS = [Linf(EPS), L2(0.5)]
PROJECTED = {
    "fgsm": fgsm,
    "rs_fgsm": rs_fgsm,
    "pgd": partial(pgd, steps=4),
    "pgd_restarts": partial(pgd, steps=3, restarts=2),
    "trades": partial(trades, steps=4),
    "worst_case": lambda ball: WorstCase([pgd(ball, steps=2), fgsm(ball)]),
}
MAKERS = PROJECTED | {"n_fgsm": n_fgsm}
RANDOM = ["rs_fgsm", "pgd", "pgd_restarts", "trades", "worst_case", "n_fgsm"]
ROUNDING = 1e-6
balls = pytest.mark.parametrize("ball", BALLS, ids=["linf", "l2"])
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
projected = pytest.mark.parametrize("make", PROJECTED.values(), ids=PROJECTED.keys())
modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Noisy(nn.Module):
    """Two classes; each pass scales the slope of the margin by the next number."""

    def __init__(self, slopes):
        super().__init__()
        self.slopes = cycle(slopes)
        self.weights = torch.randn(3 * 8 * 8, generator=seeded(3))

    def forward(self, x):
        margin = next(self.slopes) * (x.flatten(1) @ self.weights)
        return torch.stack([margin, torch.zeros_like(margin)], 1)


def radii(ball, delta):
    return delta.flatten(1).norm(p=float("inf") if isinstance(ball, Linf) else 2, dim=1)


def raised(goal, model, x, y, x_adv):
    """The goal at ``x_adv``, image by image."""
    with torch.no_grad():
        return goal(model, x, y)(model(x_adv))


def trained(seed=0, images=64):
    """A network in evaluation mode and images that it gets right, with room for doubt."""
    torch.manual_seed(seed)
    net = TinyNet()
    x = torch.rand(images, 3, 8, 8)
    net(x)
    net.eval()
    return net, x, net(x).argmax(1)


class Linear:
    """``x -> W x``: its input gradients are known."""

    def __init__(self, classes=4, seed=0):
        self.weights = torch.randn(classes, 48, generator=seeded(seed))

    def __call__(self, x):
        return x.flatten(1) @ self.weights.T

    def ascent(self, x, y):
        """The gradient of the cross-entropy: ``W^T (p - onehot(y))``."""
        p = self(x).softmax(1)
        p[range(len(y)), y] -= 1
        return (p @ self.weights).view_as(x)


GREY, LABELS = torch.full((3, 3, 4, 4), 0.5), torch.tensor([0, 1, 2])


# What every attack promises


@balls
@makers
def test_is_an_attack(make, ball):
    assert isinstance(make(ball), Attack)


@balls
@projected
@modes
def test_stays_in_the_ball_and_in_pixel_range(make, ball, training, net, batch):
    x, y = batch
    x_adv = make(ball)(net.train(training), x, y).x_adv
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert (radii(ball, x_adv - x) <= ball.eps + ROUNDING).all()
    assert not x_adv.requires_grad


@balls
@pytest.mark.parametrize("steps", [1, 3])
def test_n_fgsm_leaves_the_ball_but_not_by_more_than_it_may(ball, steps, net):
    x, y = torch.full((64, 3, 8, 8), 0.5), torch.arange(64) % 4
    k, alpha = 2.0, 0.7 * ball.eps
    x_adv = n_fgsm(ball, k=k, alpha=alpha, steps=steps)(net, x, y).x_adv
    radius = radii(ball, x_adv - x)
    assert radius.max() > 1.1 * ball.eps
    assert radius.max() <= k * ball.eps + steps * alpha + ROUNDING


def test_n_fgsm_keeps_to_the_pixel_range(net, batch):
    x_adv = n_fgsm(Linf(0.5))(net, *batch).x_adv
    assert x_adv.min() == 0
    assert x_adv.max() == 1


@balls
@makers
@modes
def test_leaves_the_network_alone(make, ball, training, net, batch):
    net.train(training)
    net.layers[4].eval()
    first, *others = net.parameters()
    first.grad = torch.ones_like(first)
    others[0].requires_grad_(False)
    before = deepcopy(net)
    make(ball)(net, *batch, keep_graph=True)
    for module, same in zip(net.modules(), before.modules(), strict=True):
        assert module.training == same.training
    for name, value in before.state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name
    assert torch.equal(first.grad, torch.ones_like(first))
    assert all(parameter.grad is None for parameter in others)
    assert [p.requires_grad for p in others] == [False] + [True] * (len(others) - 1)
    if training:
        net(batch[0])
        assert net.layers[1].num_batches_tracked == 1  # and tracks again


@balls
@makers
def test_leaves_the_batch_alone(make, ball, net, batch):
    x, y = batch
    before = x.clone(), y.clone()
    x_adv = make(ball)(net, x, y).x_adv
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert not x.requires_grad
    assert x_adv.data_ptr() != x.data_ptr()


@balls
@makers
def test_all_noise_comes_from_the_generator(make, ball):
    net, x, y = trained(images=16)
    before = torch.get_rng_state()
    first, again = (make(ball)(net, x, y, generator=seeded()).x_adv for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)


@balls
@pytest.mark.parametrize("name", RANDOM)
def test_another_seed_draws_another_start(name, ball):
    net, x, y = trained(images=16)
    attack = MAKERS[name](ball)
    first, other = (attack(net, x, y, generator=seeded(seed)).x_adv for seed in (0, 1))
    assert not torch.equal(first, other)


@balls
@makers
def test_without_a_generator_the_global_seed_decides(make, ball):
    net, x, y = trained(images=16)
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        results.append(make(ball)(net, x, y).x_adv)
    assert torch.equal(*results)


@balls
@makers
def test_raises_its_goal(make, ball):
    net, x, y = trained(seed=1)
    attack = make(ball)
    goal = leave_clean_prediction if make is MAKERS["trades"] else misclassify
    x_adv = attack(net, x, y, generator=seeded()).x_adv
    gain = raised(goal, net, x, y, x_adv) - raised(goal, net, x, y, x)
    assert (gain > 0).float().mean() > 0.9
    noise = (x + ball.sample(x, seeded())).clamp(0, 1)
    assert gain.mean() > 5 * (raised(goal, net, x, y, noise) - raised(goal, net, x, y, x)).mean()


@balls
@makers
def test_does_not_depend_on_the_memory_format(make, ball):
    net, x, y = trained(images=8)
    net, x = net.double(), x.double()
    strided = x.contiguous(memory_format=torch.channels_last)
    plain, other = (make(ball)(net, z, y, generator=seeded()).x_adv for z in (x, strided))
    torch.testing.assert_close(plain, other, rtol=0, atol=1e-9)


def off_centre(x, ball, generator=None):
    """A start that is the same for every image."""
    return torch.full_like(x, 0.003)


@balls
@pytest.mark.parametrize("make", [fgsm, rs_fgsm, n_fgsm, pgd, trades])
def test_treats_each_image_on_its_own(make, ball):
    net, x, y = trained(images=8)
    net, x = net.double(), x.double()
    attack = replace(make(ball), start=off_centre)
    one = attack(net, x[:1], y[:1]).x_adv
    torch.testing.assert_close(attack(net, x, y).x_adv[:1], one, rtol=0, atol=1e-9)


@makers
def test_inside_inference_mode_is_refused_with_advice(make):
    net, x, y = trained(images=4)
    with (
        torch.inference_mode(),
        pytest.raises(RuntimeError, match=r"leave torch\.inference_mode\(\)"),
    ):
        make(Linf(EPS))(net, x, y)


@balls
@makers
def test_inside_no_grad_it_still_finds_its_gradients(make, ball):
    net, x, y = trained(images=8)
    with torch.no_grad():
        inside = make(ball)(net, x, y, generator=seeded()).x_adv
        assert not torch.is_grad_enabled()
    assert torch.equal(inside, make(ball)(net, x, y, generator=seeded()).x_adv)


# Precision


@balls
@projected
def test_under_bf16_autocast_images_stay_fp32_and_in_the_ball(make, ball):
    net, x, y = trained(images=16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(x).dtype == torch.bfloat16
        x_adv = make(ball)(net, x, y).x_adv
    assert x_adv.dtype == torch.float32
    assert x_adv.isfinite().all()
    assert (radii(ball, x_adv - x) <= ball.eps + ROUNDING).all()


def test_under_bf16_autocast_fgsm_steps_by_eps_to_fp32_precision():
    net, _, y = trained(images=6)
    x = 0.25 + 0.5 * torch.rand(6, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        delta = fgsm(Linf(EPS))(net, x, y).x_adv - x
    moved = delta.abs()[delta.abs() > ROUNDING]  # a bf16 gradient may underflow to exactly 0
    assert len(moved) > 0.95 * delta.numel()
    torch.testing.assert_close(moved, torch.full_like(moved, EPS), rtol=0, atol=ROUNDING)


@makers
def test_under_bf16_autocast_the_training_step_keeps_its_gradients(make, net, batch):
    x, y = batch
    with torch.autocast("cpu", dtype=torch.bfloat16):
        make(Linf(EPS))(net, x, y)
        F.cross_entropy(net(x), y).backward()
    attacked = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        F.cross_entropy(net(x), y).backward()
    for ours, parameter in zip(attacked, net.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad)


# Closed forms


def test_fgsm_on_a_linear_classifier_is_known():
    model = Linear()
    x_adv = fgsm(Linf(EPS))(model, GREY, LABELS).x_adv
    torch.testing.assert_close(x_adv - GREY, EPS * model.ascent(GREY, LABELS).sign())


def test_l2_fgsm_on_a_linear_classifier_is_known():
    model = Linear()
    direction = F.normalize(model.ascent(GREY, LABELS).flatten(1)).view_as(GREY)
    x_adv = fgsm(L2(0.5))(model, GREY, LABELS).x_adv
    torch.testing.assert_close(x_adv - GREY, 0.5 * direction, rtol=0, atol=ROUNDING)


def test_fgsm_clips_to_pixels():
    model, x = Linear(), torch.tensor([0.0, 1.0]).repeat(3 * 24).view(3, 3, 4, 4)
    x_adv = fgsm(Linf(EPS))(model, x, LABELS).x_adv
    ascent = model.ascent(x, LABELS)
    blocked = (ascent.sign() > 0) == (x > 0.5)
    assert torch.equal(x_adv[blocked], x[blocked])
    torch.testing.assert_close((x_adv - x).abs()[~blocked], torch.full_like(x, EPS)[~blocked])


def test_l2_fgsm_in_the_flat_part_of_a_confident_network_stays_finite():
    # p(y|x) rounds to 1, so the gradient is as small as 1e-30 or 0.
    def confident(x):
        return torch.stack([x.flatten(1).sum(1) * 0 + margins, -x.flatten(1).sum(1)], 1)

    margins = torch.tensor([45.0, 500.0])
    x = torch.full((2, 3, 4, 4), 0.5)
    delta = fgsm(L2(0.5))(confident, x, torch.tensor([0, 0])).x_adv - x
    assert radii(L2(0.5), delta)[0].item() == pytest.approx(0.5, abs=1e-5)
    assert radii(L2(0.5), delta)[1] == 0


@pytest.mark.parametrize("restarts", [1, 3])
def test_pgd_reaches_the_corner_that_is_worst_for_a_linear_classifier(restarts):
    model, x, y = Linear(classes=2), torch.rand(5, 3, 4, 4), torch.tensor([0, 1, 0, 1, 1])
    towards = model.weights[1 - y] - model.weights[y]
    corner = (x + EPS * towards.view_as(x).sign()).clamp(0, 1)
    x_adv = pgd(Linf(EPS), steps=9, restarts=restarts)(model, x, y).x_adv
    torch.testing.assert_close(x_adv, corner, rtol=0, atol=ROUNDING)


def test_l2_pgd_reaches_the_point_that_is_worst_for_a_linear_classifier():
    model, x, y = Linear(classes=2), GREY, torch.tensor([0, 1, 0])
    towards = F.normalize(model.weights[1 - y] - model.weights[y]).view_as(x)
    x_adv = pgd(L2(0.5), steps=40, alpha=1.0)(model, x, y).x_adv
    torch.testing.assert_close(x_adv - x, 0.5 * towards, rtol=0, atol=1e-5)


def test_trades_leaves_the_prediction_whatever_the_label(net, batch):
    x, y = batch
    attack = trades(Linf(EPS), steps=3)
    results = [attack(net.eval(), x, label, generator=seeded()).x_adv for label in (y, 3 - y)]
    assert torch.equal(*results)


def test_the_divergence_from_the_clean_prediction_is_zero_at_the_clean_image(net, batch):
    net.eval()
    gain = leave_clean_prediction(net, *batch)
    torch.testing.assert_close(gain(net(batch[0])), torch.zeros(6), rtol=0, atol=1e-7)
    assert (gain(net(1 - batch[0])) > 0).all()


# Starts and what the search hands over


def test_uniform_starts_fill_the_scaled_ball():
    x = torch.zeros(50, 3, 8, 8)
    eta = Uniform(2.0)(x, Linf(EPS), seeded())
    assert EPS < eta.abs().max() <= 2 * EPS + ROUNDING
    assert eta.std().item() == pytest.approx(2 * EPS / 3**0.5, rel=0.02)
    assert (radii(L2(0.5), Uniform(2.0)(x, L2(0.5), seeded())) <= 1 + ROUNDING).all()


def test_gaussian_starts_do_not_depend_on_the_ball():
    x = torch.zeros(50, 3, 8, 8)
    eta = Gaussian(0.001)(x, Linf(EPS), seeded())
    assert torch.equal(eta, Gaussian(0.001)(x, L2(0.5), seeded()))
    assert eta.std().item() == pytest.approx(0.001, rel=0.02)


@pytest.mark.parametrize("steps", [1, 3])
@modes
def test_kept_graph_gives_the_gradients_of_a_fresh_forward(steps, training, net, batch):
    x, y = batch
    net.train(training)
    kept = fgsm(Linf(EPS), steps=steps)(net, x, y, keep_graph=True).clean_logits
    fresh = net(x)
    torch.testing.assert_close(kept, fresh)
    parameters = list(net.parameters())
    ours, theirs = (
        torch.autograd.grad(F.cross_entropy(z, y), parameters) for z in (kept, fresh)
    )  # fmt: skip
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def uniform(x):
    """The noise of a random start in the L-inf ball."""
    return torch.empty_like(x).uniform_(-EPS, EPS, generator=seeded())


@pytest.mark.parametrize("restarts", [1, 3])
@modes
def test_start_logits_are_those_of_the_first_point(restarts, training, net, batch):
    net, x, y = net.double().train(training), batch[0].double(), batch[1]
    attack = pgd(Linf(EPS), steps=2, restarts=restarts)
    kept = attack(net, x, y, keep_graph=True, generator=seeded()).start_logits
    fresh = net((x + uniform(x)).clamp(0, 1))
    torch.testing.assert_close(kept, fresh)
    parameters = list(net.parameters())
    ours, theirs = (torch.autograd.grad(F.cross_entropy(z, y), parameters) for z in (kept, fresh))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


TRACKED = {
    "fgsm": (fgsm(Linf(EPS), steps=3), torch.zeros_like),
    "pgd": (pgd(Linf(EPS), steps=3), uniform),
    "pgd_restarts": (pgd(Linf(EPS), steps=2, restarts=3), uniform),
    "trades": (
        trades(Linf(EPS), steps=3),
        lambda x: 0.001 * torch.randn(x.shape, generator=seeded()),
    ),
}


@pytest.mark.parametrize(("attack", "eta"), TRACKED.values(), ids=TRACKED.keys())
def test_asked_to_it_tracks_the_statistics_of_its_first_point_and_no_other(attack, eta, net, batch):
    x, y = batch
    once, untracked = deepcopy(net), deepcopy(net)
    once((x + eta(x)).clamp(0, 1))
    x_adv = attack(net, x, y, track_stats=True, generator=seeded()).x_adv
    for name, value in once.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value)
    assert net.layers[1].num_batches_tracked == 1
    assert torch.equal(x_adv, attack(untracked, x, y, generator=seeded()).x_adv)


def test_asked_to_it_tracks_the_statistics_of_every_point_of_pgd(net, batch):
    """As in the code of PGD-AT (Rice et al., 2020): a slow loop in training mode."""
    x, y = batch
    slow, delta = deepcopy(net), ((x + uniform(x)).clamp(0, 1) - x).requires_grad_()
    for _ in range(3):
        (grad,) = torch.autograd.grad(F.cross_entropy(slow(x + delta), y, reduction="sum"), delta)
        delta = (delta + EPS / 4 * grad.sign()).clamp(-EPS, EPS)
        delta = ((x + delta).clamp(0, 1) - x).detach().requires_grad_()
    attack = pgd(Linf(EPS), steps=3, track_every=True)
    found = attack(net, x, y, track_stats=True, generator=seeded())
    for name, value in slow.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value)
    assert net.layers[1].num_batches_tracked == 3
    torch.testing.assert_close(found.x_adv, (x + delta).clamp(0, 1))
    before = deepcopy(net.state_dict())
    attack(net, x, y, generator=seeded())
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())


@makers
def test_in_evaluation_mode_there_are_no_statistics_to_track(make, net, batch):
    before = deepcopy(net.eval())
    make(Linf(EPS))(net, *batch, track_stats=True)
    for name, value in before.state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name


@makers
def test_no_graph_is_kept_unasked(make, net, batch):
    found = make(Linf(EPS))(net, *batch)
    assert found.start_logits is None or not found.start_logits.requires_grad


@makers
def test_clean_logits_are_known_only_to_a_search_that_starts_clean(make, net, batch):
    attack = make(Linf(EPS))
    clean = attack(net.eval(), *batch).clean_logits
    assert (clean is not None) == attack.starts_clean == (make is fgsm)
    assert clean is None or torch.equal(clean, net(batch[0]))


def test_steps_are_the_gradients_of_one_search():
    ball = Linf(EPS)
    assert [make(ball).steps for make in (fgsm, rs_fgsm, n_fgsm)] == [1, 1, 1]
    assert pgd(ball, steps=7, restarts=3).steps == 7
    assert WorstCase([fgsm(ball), pgd(ball, steps=7), trades(ball, steps=5)]).steps == 7


# Settings


@balls
@makers
def test_scaled_is_the_attack_of_the_scaled_ball(make, ball):
    assert make(ball).scaled(0.5) == make(ball.scaled(0.5))


@balls
@projected
def test_scaled_attacks_stay_in_the_scaled_ball(make, ball, net, batch):
    x, y = batch
    small = make(ball).scaled(0.1)
    assert (radii(ball, small(net, x, y).x_adv - x) <= 0.1 * ball.eps + ROUNDING).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0, "alpha": 0.1},
        {"steps": -1, "alpha": 0.1},
        {"steps": 1, "alpha": 0.0},
        {"steps": 1, "alpha": -0.1},
        {"steps": 1, "alpha": float("nan")},
    ],
    ids=str,
)
def test_an_attack_that_would_return_its_start_is_refused(settings):
    with pytest.raises(ValueError, match=r"^(steps|alpha) must be"):
        GradientAttack(Linf(EPS), **settings)


# What CW and targeted attacks raise, in double precision: closed forms, foolbox, slow loops


CLASSES = 5
X = torch.rand(6, 3, 4, 4, dtype=torch.double, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % CLASSES
W = torch.randn(CLASSES, 48, dtype=torch.double, generator=torch.Generator().manual_seed(1))
LOGITS = torch.tensor([[3.0, 1.0, -2.0, 2.0], [3.0, 1.0, -2.0, 2.0], [0.0, 1.0, 2.0, -4.0]])
TARGETS = {"likeliest": [3, 0, 2], "least_likely": [2, 2, 0], "next": [1, 2, 0]}
LABELS_OF_LOGITS = torch.tensor(
    [0, 1, 3]
)  # of LOGITS; in the last row the label is the least likely of all


def linear(x):
    return x.flatten(1) @ W.T


def rows(indices):
    """The gradients of these logits of the linear classifier, as images."""
    return W[indices].reshape(-1, 3, 4, 4)


def stepped(x, gradient, ball):
    """One step of length eps along a known gradient, inside the pixel range."""
    if isinstance(ball, Linf):
        return (x + ball.eps * gradient.sign()).clamp(0, 1)
    unit = torch.stack([g / torch.linalg.norm(g) for g in gradient])
    return (x + ball.eps * unit).clamp(0, 1)


@pytest.fixture
def victim():
    """A network in evaluation mode, with running statistics of its own, its images and labels."""
    net, x = TinyNet().double(), torch.rand(6, 3, 8, 8, dtype=torch.double)
    for _ in range(20):
        net(torch.rand(32, 3, 8, 8, dtype=torch.double))
    net.eval()
    return net, x, net(x).argmax(1)


double_balls = pytest.mark.parametrize("ball", [Linf(EPS), L2(0.3)], ids=["linf", "l2"])


# The margin


def test_the_margin_is_that_of_the_likeliest_wrong_class_to_the_label():
    gain = widen_margin(linear, X[:3], LABELS_OF_LOGITS)(LOGITS)
    assert gain.tolist() == [2.0 - 3.0, 3.0 - 1.0, 2.0 + 4.0]


def test_the_clean_prediction_is_kept_in_fp32_under_autocast():
    """Its logits are bf16, their softmax is not: the divergence to themselves is 0."""
    net, x, y = TinyNet().eval(), torch.rand(4, 3, 8, 8), torch.arange(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gain = leave_clean_prediction(net, x, y)
        divergence = gain(net(x).float())
    torch.testing.assert_close(divergence, torch.zeros(4), rtol=0, atol=1e-6)


def test_the_margin_is_positive_exactly_for_images_that_are_wrong(victim):
    net, x, _ = victim
    y = torch.arange(6) % 4
    logits = net(x)
    wrong = logits.argmax(1) != y
    assert 0 < wrong.sum() < 6
    assert torch.equal(widen_margin(net, x, y)(logits) > 0, wrong)


@double_balls
def test_one_step_on_the_margin_of_a_linear_classifier_is_known(ball):
    logits = linear(X)
    logits[torch.arange(6), Y] = -torch.inf
    gradient = rows(logits.argmax(1)) - rows(Y)
    found = GradientAttack(ball, alpha=ball.eps, steps=1, goal=widen_margin)(linear, X, Y)
    torch.testing.assert_close(found.x_adv, stepped(X, gradient, ball))


def test_cw_on_two_classes_reaches_the_corner_that_is_worst_for_a_linear_classifier():
    y = torch.zeros(6, dtype=torch.long)
    found = cw(Linf(EPS))(lambda x: linear(x)[:, :2], X, y).x_adv
    corner = (X + EPS * (rows([1]) - rows([0])).sign()).clamp(0, 1)
    torch.testing.assert_close(found, corner)


def test_cw_does_not_see_the_scale_of_the_logits_and_the_cross_entropy_does(victim):
    net, x, y = victim[0].float(), victim[1].float(), victim[2]

    def loud(images):
        return 2.0**20 * net(images)

    attack = GradientAttack(Linf(EPS), alpha=EPS / 4, steps=10, goal=widen_margin)
    assert torch.equal(attack(loud, x, y).x_adv, attack(net, x, y).x_adv)
    assert torch.equal(fgsm(Linf(EPS))(loud, x, y).x_adv, x)  # its gradient has underflowed


@pytest.mark.parametrize("steps", [1, 10])
def test_cw_is_pgd_on_the_margin(victim, steps):
    net, x, y = victim
    expected = []
    for i in range(6):
        label, x_adv = int(y[i]), x[i : i + 1].clone()
        for _ in range(steps):
            x_adv.requires_grad_()
            scores = net(x_adv)[0]
            others = [scores[k] for k in range(4) if k != label]
            (scores[label] - torch.stack(others).max()).backward()
            x_adv = x_adv.detach() - EPS / 4 * x_adv.grad.sign()
            x_adv = x_adv.clamp(x[i] - EPS, x[i] + EPS).clamp(0, 1)
        expected.append(x_adv)
    ours = GradientAttack(Linf(EPS), alpha=EPS / 4, steps=steps, goal=widen_margin)
    torch.testing.assert_close(ours(net, x, y).x_adv, torch.cat(expected), rtol=0, atol=1e-6)


# The targets


@pytest.mark.parametrize(("target", "expected"), TARGETS.items(), ids=TARGETS.keys())
def test_targets_are_wrong_classes_chosen_at_the_clean_image(target, expected):
    gain = ReachTarget(target)(lambda _: LOGITS, X[:3], LABELS_OF_LOGITS)
    elsewhere = torch.randn(3, 4)
    log_p = elsewhere.log_softmax(1)
    torch.testing.assert_close(gain(elsewhere), log_p[torch.arange(3), expected])


@double_balls
def test_one_step_to_the_next_class_of_a_linear_classifier_is_known(ball):
    p = linear(X).softmax(1)
    gradient = rows((Y + 1) % CLASSES) - (p @ W).reshape(X.shape)
    goal = ReachTarget("next")
    found = GradientAttack(ball, alpha=ball.eps, steps=1, goal=goal)(linear, X, Y)
    torch.testing.assert_close(found.x_adv, stepped(X, gradient, ball))


@pytest.mark.parametrize("steps", [1, 10])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_targeted_pgd_is_that_of_foolbox(victim, norm, steps):
    net, x, y = victim
    ball = {"linf": Linf(EPS), "l2": L2(0.5)}[norm]
    attack = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    expected = attack(abs_stepsize=ball.eps / 4, steps=steps, random_start=False).run(
        foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu"),
        x,
        foolbox.criteria.TargetedMisclassification((y + 1) % 4),
        epsilon=ball.eps,
    )
    ours = GradientAttack(ball, alpha=ball.eps / 4, steps=steps, goal=ReachTarget("next"))
    found = ours(net, x, y).x_adv
    assert not torch.equal(found, x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_a_large_ball_takes_every_image_to_its_target(victim, target):
    net, x, y = victim
    x_adv = targeted(Linf(0.5), target=target)(net, x, y).x_adv
    gain = ReachTarget(target)(net, x, y)
    assert (gain(net(x_adv)) > gain(net(x))).all()
    assert (net(x_adv).argmax(1) != y).all()


def test_the_start_of_another_goal_reports_no_gradient_of_the_cross_entropy(victim):
    assert cw(Linf(EPS))(*victim).start_grad is None
    assert targeted(Linf(EPS))(*victim).start_grad is None
    assert fgsm(Linf(EPS))(*victim).start_grad is not None


def test_the_margin_and_the_cross_entropy_agree_on_two_classes():
    logits, y = torch.randn(6, 2, dtype=torch.double), torch.arange(6) % 2
    margin = widen_margin(linear, X, y)(logits)
    torch.testing.assert_close(F.softplus(margin), F.cross_entropy(logits, y, reduction="none"))


# Expectation over transformation


@balls
@pytest.mark.parametrize("make", [pgd, trades, cw, targeted])
def test_on_a_deterministic_network_averaged_gradients_are_the_gradient(ball, make):
    net, x, y = TinyNet().eval(), torch.rand(5, 3, 8, 8, generator=seeded()), torch.arange(5) % 4
    plain = make(ball, steps=3)(net, x, y, generator=seeded(1)).x_adv
    once = make(ball, steps=3, eot=1)(net, x, y, generator=seeded(1)).x_adv
    thrice = make(ball, steps=3, eot=3)(net, x, y, generator=seeded(1)).x_adv
    assert torch.equal(once, plain)
    torch.testing.assert_close(thrice, plain, atol=1e-5, rtol=0)
    assert make(ball, steps=3, eot=4).passes == 12


def test_the_gradient_of_a_noisy_network_is_the_mean_over_its_noise():
    x, y = torch.full((1, 3, 8, 8), 0.5), torch.tensor([0])
    slopes = [1e-3, -3e-3, 1e-3, 1.5e-3, 1e-3]  # small: the softmax stays linear
    net = Noisy(slopes)
    attack = GradientAttack(Linf(0.1), alpha=0.1, steps=1, eot=5)
    found = attack(net, x, y)
    expected = -0.5 * sum(slopes) * net.weights.view(1, 3, 8, 8)  # of the cross-entropy of class 0
    torch.testing.assert_close(found.start_grad, expected, rtol=2e-2, atol=1e-6)
    torch.testing.assert_close(found.x_adv, (x + 0.1 * expected.sign()).clamp(0, 1))
    wrong = GradientAttack(Linf(0.1), alpha=0.1, steps=1, eot=2)(Noisy(slopes), x, y)
    torch.testing.assert_close(wrong.x_adv, x - 0.1 * expected.sign())  # -2e-3 of two passes
