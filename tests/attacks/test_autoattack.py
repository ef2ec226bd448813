"""AutoAttack behind our protocol, against the library as its authors run it."""

from functools import partial

import pyautoattack as theirs
import pytest
import torch
import torch.nn.functional as F
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

from energy_at.attacks import LibraryAttack
from energy_at.attacks import autoattack as ensemble
from energy_at.attacks.autoattack import autoattack
from energy_at.attacks.registry import CLEAN, AttackKey
from energy_at.attacks.threat import L2, Linf
from energy_at.core.rng import ImageNoise
from energy_at.data import ImageSet
from energy_at.evaluation.robustness import Evaluator
from energy_at.models.modes import Tiled
from tests.helpers.digits_net import digits_net
from tests.helpers.nets import TinyNet

SEED, STEPS, QUERIES = 7, 5, 60
NAMES = ["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]
balls = pytest.mark.parametrize("ball", [Linf(0.07), L2(0.4)], ids=["linf", "l2"])
names = pytest.mark.parametrize("name", NAMES)
short = partial(LibraryAttack, steps=5, queries=30)


def seeded(seed=SEED):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def victim():
    """A trained network, 40 images that it was not trained on, of which some are wrong."""
    net, images = digits_net()
    images = images.first(40)
    return net, images.pixels / 255, images.labels


def standard_evaluation(net, x, y, ball):
    """Adversarial images and predictions, as the library finds them in one batch."""
    norm = type(ball).__name__
    whole = theirs.AutoAttack(net, norm=norm, eps=ball.eps, seed=SEED, version="standard")
    shared = {"norm": norm, "eps": ball.eps, "seed": SEED, "device": "cpu", "logger": whole.logger}
    whole.apgd = APGDAttack(net, n_iter=STEPS, **shared)
    whole.apgd_targeted = APGDAttack_targeted(net, n_iter=STEPS, **shared)
    whole.fab.n_iter, whole.square.n_queries = STEPS, QUERIES
    return whole.run_standard_evaluation(x, y)


# The library itself


@balls
def test_an_exam_finds_what_the_standard_evaluation_of_the_library_finds(ball, victim, monkeypatch):
    net, x, y = victim
    monkeypatch.setattr(ensemble, "_seed", lambda _: SEED)  # theirs is one for all attacks
    exam = Evaluator(ImageSet((255 * x).round().to(torch.uint8), y))
    found = exam.correct(net, {AttackKey("aa"): autoattack(ball, steps=STEPS, queries=QUERIES)})
    _, predicted = standard_evaluation(Tiled(net, 32), x, y, ball)
    assert torch.equal(found[AttackKey("aa")], predicted == y)
    assert 0 < found[AttackKey("aa")].sum() < found[CLEAN].sum() < 40


@balls
def test_the_images_are_those_of_the_library(ball, victim):
    net, x, y = victim
    attack = autoattack(ball, steps=STEPS, queries=QUERIES)
    expected, _ = standard_evaluation(net, x, y, ball)
    found = attack(net, x, y, generator=seeded()).x_adv
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert not torch.equal(found, x)


def test_the_constants_are_those_of_the_standard_version(victim):
    net, *_ = victim
    whole = theirs.AutoAttack(net, norm="Linf", eps=0.1, seed=0, version="standard")
    ours = autoattack(Linf(0.1))
    assert [attack.name for attack in ours.attacks] == whole.attacks_to_run
    found = [attack._make_search(net, torch.rand(1, 1, 8, 8), 0) for attack in ours.attacks]
    for attack, expected, settings in zip(
        found,
        [whole.apgd, whole.apgd_targeted, whole.fab, whole.square],
        [
            ["n_iter", "n_restarts", "loss", "thr_decr", "eot_iter", "n_iter_2", "n_iter_min"],
            ["n_iter", "n_restarts", "loss", "thr_decr", "eot_iter", "n_target_classes"],
            ["n_iter", "n_restarts", "alpha_max", "eta", "beta", "n_target_classes"],
            ["n_queries", "n_restarts", "p_init", "loss", "rescale_schedule"],
        ],
        strict=True,
    ):
        for setting in settings:
            assert getattr(attack, setting) == getattr(expected, setting)
    assert found[2].targeted


# Any attack


@names
@balls
def test_breaks_images_within_the_ball_and_the_pixel_range(ball, name, victim):
    net, x, y = victim
    x_adv = short(ball, name)(net, x, y, generator=seeded()).x_adv
    radius = (x_adv - x).flatten(1).norm(p=2 if isinstance(ball, L2) else torch.inf, dim=1)
    assert radius.max() <= ball.eps * (1 + 1e-5)
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert (net(x_adv).argmax(1) == y).sum() < (net(x).argmax(1) == y).sum()


@names
@balls
def test_leaves_images_that_resist_as_they_were(ball, name, victim):
    net, x, y = victim
    x_adv = short(ball, name)(net, x, y, generator=seeded()).x_adv
    resists = net(x_adv).argmax(1) == y
    assert resists.any()
    assert torch.equal(x_adv[resists], x[resists])


@names
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("keeps", ["broken", "worst"])
def test_leaves_the_network_and_the_batch_alone(name, training, keeps, batch):
    net, (x, y) = TinyNet().train(training), batch
    net.layers[1].eval()
    net.layers[3].weight.requires_grad_(False)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    wanted = [parameter.requires_grad for parameter in net.parameters()]
    given = x.clone(), y.clone()
    short(Linf(0.3), name, keeps=keeps)(net, x, y, generator=seeded())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes
    assert [parameter.requires_grad for parameter in net.parameters()] == wanted
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(module.track_running_stats for module in (net.layers[1], net.layers[4]))
    assert torch.equal(given[0], x)
    assert torch.equal(given[1], y)


@names
def test_leaves_the_global_generator_alone_and_does_not_look_at_it(name, victim):
    net, x, y = victim
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(short(Linf(0.07), name)(net, x, y, generator=seeded()).x_adv)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t", "square"])
@pytest.mark.parametrize("keeps", ["worst", pytest.param("broken", marks=pytest.mark.slow)])
def test_another_seed_searches_elsewhere(name, keeps, victim):
    attack = short(Linf(0.07), name, keeps=keeps)
    noises = [seeded(1), seeded(2), ImageNoise.of(range(40), 1), ImageNoise.of(range(40), 2)]
    found = [attack(*victim, generator=noise).x_adv for noise in noises]
    assert all(not torch.equal(a, b) for i, a in enumerate(found) for b in found[:i])


def test_keeps_no_graph_inside_or_outside_of_no_grad(victim):
    attack = short(Linf(0.07), "apgd-ce")
    outside = attack(*victim, generator=seeded()).x_adv
    with torch.no_grad():
        inside = attack(*victim, generator=seeded()).x_adv
    assert not outside.requires_grad
    assert torch.equal(inside, outside)


def test_gradients_of_zero_are_searched_in_silence(recwarn):
    def flat(x):
        return torch.tensor([3.0, 2.0, 1.0, 0.0]) + 0 * x.flatten(1)[:, :4]

    x, y = torch.rand(3, 1, 8, 8), torch.zeros(3, dtype=torch.long)
    for name in NAMES:
        x_adv = short(Linf(0.1), name)(flat, x, y).x_adv
        assert torch.equal(x_adv, x)
    assert not recwarn.list


def test_a_scaled_attack_is_the_attack_of_the_scaled_ball():
    attack = LibraryAttack(L2(0.5), "square", steps=3, queries=9, keeps="worst")
    assert attack.scaled(0.5) == LibraryAttack(
        L2(0.25), "square", steps=3, queries=9, keeps="worst"
    )


# What it keeps


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("apgd-ce", lambda logits, y: F.cross_entropy(logits, y, reduction="none")),
        ("square", lambda logits, y: -logits.gather(1, y[:, None])[:, 0]
            + logits.scatter(1, y[:, None], -torch.inf).amax(1)),
    ],
)  # fmt: skip
@balls
def test_the_worst_point_of_an_image_that_resists_has_a_higher_loss(ball, name, loss, victim):
    net, x, y = victim
    found = {
        keeps: short(ball.scaled(0.5), name, keeps=keeps)(net, x, y, generator=seeded()).x_adv
        for keeps in ("broken", "worst")
    }
    resists = net(found["broken"]).argmax(1) == y
    assert resists.any()
    with torch.no_grad():
        clean, worst = (loss(net(point), y) for point in (x, found["worst"]))
    assert (worst > clean)[resists].all()


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "square"])
def test_the_worst_point_is_of_every_image_one_that_is_wrong_already_too(name, victim):
    net, x, y = victim
    wrong = net(x).argmax(1) != y
    moved = short(Linf(0.07), name, keeps="worst")(net, x, y, generator=seeded()).x_adv
    assert (moved != x)[wrong].flatten(1).any(1).all()


@pytest.mark.parametrize(("name", "least"), [("apgd-dlr", 3), ("apgd-t", 4), ("fab-t", 2)])
def test_too_few_classes_are_one_line(name, least):
    def few(x):
        return x.flatten(1)[:, : least - 1]

    with pytest.raises(ValueError, match=f"{name} needs at least {least} classes, not "):
        short(Linf(0.1), name).run(few, torch.rand(2, 1, 8, 8), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("name", NAMES)
def test_four_classes_are_enough_for_every_attack(name, net, batch):
    x_adv = short(Linf(0.3), name)(net.eval(), *batch, generator=seeded()).x_adv
    assert x_adv.shape == batch[0].shape


@pytest.mark.parametrize("settings", [{"steps": 0}, {"queries": 0}])
def test_a_search_of_nothing_is_refused(settings):
    with pytest.raises(ValueError, match="must be an integer >= 1"):
        LibraryAttack(Linf(0.1), "square", **settings)
