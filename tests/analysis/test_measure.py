"""Energies under attack against closed forms, identities, and slow loops over single images."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from energy_at.analysis.measure import TIMES, Shifts, measure_landscape
from energy_at.attacks import LibraryAttack, fgsm, pgd, trades
from energy_at.attacks.registry import named_attack
from energy_at.attacks.threat import L2, Linf
from energy_at.core.rng import ImageNoise
from energy_at.data import ImageSet
from energy_at.evaluation.robustness import Evaluator
from energy_at.models import preactresnet18
from tests.helpers.nets import TinyNet
from tests.helpers.standard_net import cifar10_test, standard_net

BALL = Linf(0.1)


def exam_of(n=20, classes=4, **settings):
    pixels = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8)
    return Evaluator(ImageSet(pixels, torch.arange(n) % classes), **settings)


def measured(net, exam, attacks, ball=BALL, **options):
    return measure_landscape(net, exam, attacks, {}, ball=ball, **options)


def same(one, other):
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for field in fields(one)
    )


# Closed forms and identities


def test_energies_of_a_linear_network_under_fgsm_are_known():
    eps, weights, bias = 0.05, torch.tensor([[1.0, -2.0, 0.5], [-1.0, 1.0, 2.0]]), [0.3, -0.2]
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    net[1].weight.data, net[1].bias.data = weights, torch.tensor(bias)
    pixels = torch.tensor([[102, 51, 153], [204, 102, 51]], dtype=torch.uint8).view(2, 3, 1, 1)
    exam = Evaluator(ImageSet(pixels, torch.tensor([0, 1])))
    found = measured(net, exam, {"fgsm": fgsm(Linf(eps))}, Linf(eps))
    # x = (0.4, 0.2, 0.6) and (0.8, 0.4, 0.2); the loss of class 0 rises along w1 - w0 =
    # (-2, 3, 1.5), that of class 1 along its negative
    signs = [(-1, 1, 1), (1, -1, -1)]
    for i, (y, x) in enumerate([(0, (0.4, 0.2, 0.6)), (1, (0.8, 0.4, 0.2))]):
        moved = [value + eps * sign for value, sign in zip(x, signs[i], strict=True)]
        f, f_adv = (
            [
                b + sum(w * v for w, v in zip(row.tolist(), point, strict=True))
                for row, b in zip(weights, bias, strict=True)
            ]
            for point in (x, moved)
        )
        e, e_adv = (-math.log(sum(map(math.exp, logits))) for logits in (f, f_adv))
        assert found.natural.marginal[i] == pytest.approx(e, abs=1e-6)
        assert found.natural.joint[i] == pytest.approx(-f[y], abs=1e-6)
        shifts = found.attacks["fgsm"]
        assert shifts.marginal[i] == pytest.approx(e_adv, abs=1e-6)
        assert shifts.delta_marginal[i] == pytest.approx(e - e_adv, abs=1e-6)
        assert shifts.delta_joint[i] == pytest.approx(f_adv[y] - f[y], abs=1e-6)
        assert shifts.size[i] == pytest.approx(eps, abs=1e-6)
        assert not shifts.is_abnormal[i]


def test_the_loss_rises_by_the_difference_of_the_delta_energies(net):
    found = measured(net, exam_of(), {"pgd": pgd(BALL, steps=3), "trades": trades(BALL, steps=3)})
    loss = found.natural.joint - found.natural.marginal
    for shifts in found.attacks.values():
        rise = (shifts.joint - shifts.marginal) - loss
        np.testing.assert_allclose(shifts.delta_marginal - shifts.delta_joint, rise, atol=1e-12)
        assert np.array_equal(shifts.is_abnormal, rise < 0)
        np.testing.assert_allclose(
            shifts.shift_norm, np.hypot(shifts.delta_marginal, shifts.delta_joint), rtol=1e-12
        )


# An independent computation


@pytest.mark.parametrize("ball", [Linf(0.05), L2(0.5)], ids=["linf", "l2"])
def test_every_column_is_what_an_image_alone_gives(net, ball):
    exam = exam_of(6, numbers=[4, 9, 11, 30, 31, 70], seed=3)
    found = measured(net, exam, {"pgd": pgd(ball, steps=4)}, ball)
    shifts = found.attacks["pgd"]
    assert found.natural.image.tolist() == exam.numbers
    net.eval()
    for i, number in enumerate(exam.numbers):
        x, y = exam.images.pixels[i : i + 1] / 255, exam.images.labels[i : i + 1]
        x_adv = pgd(ball, steps=4)(net, x, y, generator=ImageNoise.of([number], 3, 0)).x_adv
        with torch.no_grad():
            f, f_adv = net(x)[0], net(x_adv)[0]
        e, e_adv = (-math.log(sum(map(math.exp, logits.tolist()))) for logits in (f, f_adv))
        expected = {
            "prediction": int(f_adv.argmax()),
            "marginal": e_adv,
            "joint": -float(f_adv[y]),
            "delta_marginal": e - e_adv,
            "delta_joint": float(f_adv[y] - f[y]),
            "shift_norm": math.hypot(e - e_adv, float(f_adv[y] - f[y])),
            "is_abnormal": bool(F.cross_entropy(f_adv[None], y) < F.cross_entropy(f[None], y)),
            "size": float(
                (x_adv - x).abs().max() if isinstance(ball, Linf) else (x_adv - x).norm()
            ),
        }
        assert set(expected) == {field.name for field in fields(Shifts)}
        for name, value in expected.items():
            assert getattr(shifts, name)[i] == pytest.approx(value, abs=1e-5), name
        assert found.natural.label[i] == int(y)
        assert found.natural.prediction[i] == int(f.argmax())
        assert found.natural.marginal[i] == pytest.approx(e, abs=1e-5)
        assert found.natural.joint[i] == pytest.approx(-float(f[y]), abs=1e-5)


def test_images_that_are_wrong_are_attacked_too(net):
    found = measured(net, exam_of(), {"pgd": pgd(BALL, steps=2)})
    wrong = found.natural.prediction != found.natural.label
    assert wrong.any()
    assert (found.attacks["pgd"].size[wrong] > 0.05).all()


# Invariants


@pytest.mark.slow
def test_any_batch_size_gives_the_same_numbers():
    net = preactresnet18(channels=3, classes=10, mean=[0.5] * 3, std=[0.25] * 3, width=4)
    attacks = {"fgsm": fgsm(BALL), "pgd": pgd(BALL, steps=3), "trades": trades(BALL, steps=2)}
    whole = exam_of(40, 10)
    expected = measured(net, whole, attacks)
    for batch_size in (7, 39):
        found = measured(net, Evaluator(whole.images, batch_size=batch_size), attacks)
        assert same(found.natural, expected.natural)
        for name in attacks:
            assert same(found.attacks[name], expected.attacks[name])
            assert same(found.paths[name], expected.paths[name])


def test_batches_do_not_change_what_a_library_finds():
    attacks = {
        name: LibraryAttack(BALL, name, steps=2, queries=10, keeps="worst")
        for name in ("apgd-ce", "square")
    }
    net, whole = TinyNet(), exam_of(130)
    expected = measured(net, whole, attacks)
    found = measured(net, Evaluator(whole.images, batch_size=17), attacks)
    for name in attacks:
        assert same(found.attacks[name], expected.attacks[name])
        assert (found.attacks[name].size > 0).all()


def test_fab_leaves_images_that_are_wrong_as_they_were(net):
    found = measured(net, exam_of(), {"fab": named_attack("fab", BALL, steps=3, keeps="worst")})
    wrong, shifts = found.natural.prediction != found.natural.label, found.attacks["fab"]
    assert wrong.any()
    for column in (shifts.size, shifts.delta_marginal, shifts.delta_joint, shifts.is_abnormal):
        assert not column[wrong].any()


def test_noise_follows_the_seed_and_the_image(net):
    images = exam_of(6).images
    attacks = {"pgd": pgd(BALL, steps=1)}
    first, again, other = (
        measured(net, Evaluator(images, seed=seed), attacks).attacks["pgd"] for seed in (0, 0, 1)
    )
    assert same(first, again)
    assert not np.array_equal(first.joint, other.joint)


def test_the_network_is_left_as_it_was(net):
    net.layers[1].eval()
    modes = [module.training for module in net.modules()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    measured(net, exam_of(), {"pgd": pgd(BALL, steps=2)})
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_logits_that_are_not_finite_are_refused(net):
    net.layers[-1].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="logits that are not finite"):
        measured(net, exam_of(), {})


# Paths and radii


def test_a_path_leads_from_the_image_through_its_adversarial_one(net):
    found = measured(net, exam_of(), {"pgd": pgd(BALL, steps=2)}, curves=7)
    path, shifts = found.paths["pgd"], found.attacks["pgd"]
    assert path.positions.tolist() == [0, 3, 6, 9, 12, 15, 18]
    assert path.marginal.shape == path.joint.shape == (7, len(TIMES))
    start, end = TIMES.index(0.0), TIMES.index(1.0)
    assert np.array_equal(path.marginal[:, start], found.natural.marginal[path.positions])
    assert np.array_equal(path.joint[:, start], found.natural.joint[path.positions])
    assert np.array_equal(path.marginal[:, end], shifts.marginal[path.positions])
    assert np.array_equal(path.joint[:, end], shifts.joint[path.positions])


def test_a_path_is_a_straight_line_clamped_to_pixels(net):
    exam = exam_of(2)
    found = measured(net, exam, {"fgsm": fgsm(BALL)}).paths["fgsm"]
    x, y = exam.images.pixels / 255, exam.images.labels
    x_adv = fgsm(BALL)(net.eval(), x, y).x_adv
    for t in (0.3, 1.5):
        with torch.no_grad():
            logits = net((x + t * (x_adv - x)).clamp(0, 1))
        column = found.marginal[:, TIMES.index(t)]
        np.testing.assert_allclose(column, -logits.logsumexp(1), atol=1e-5)


def test_the_sweep_holds_the_attack_itself_at_its_radius(net):
    balls = [BALL.scaled(factor) for factor in (0.5, 1.0)]
    sweep = {ball.eps: pgd(ball, steps=2) for ball in balls}
    found = measure_landscape(
        net, exam_of(), {"pgd": pgd(BALL, steps=2)}, sweep, ball=BALL, curves=6
    )
    assert found.radii.eps.tolist() == [0.05, 0.1]
    assert found.radii.delta_marginal.shape == (len(found.radii.positions), 2)
    shifts, positions = found.attacks["pgd"], found.radii.positions
    assert np.array_equal(found.radii.delta_marginal[:, 1], shifts.delta_marginal[positions])
    assert np.array_equal(found.radii.delta_joint[:, 1], shifts.delta_joint[positions])


# Negative control: a standard network, which must lose all its accuracy and gain likelihood


@pytest.fixture(scope="module")
def official_images(tmp_path_factory):
    return cifar10_test(tmp_path_factory)


def under_pgd(images, steps):
    ball = Linf(8 / 255)
    found = measured(
        standard_net(), Evaluator(images), {"pgd": pgd(ball, steps=steps)}, ball, curves=1
    )
    return found.natural, found.attacks["pgd"]


@pytest.mark.slow
def test_a_standard_network_finds_adversarial_images_likelier(official_images):
    natural, shifts = under_pgd(official_images.first(32), 5)
    assert (natural.prediction == natural.label).mean() > 0.9
    assert (shifts.prediction == natural.label).mean() == 0
    assert shifts.delta_marginal.mean() > 4
    assert not shifts.is_abnormal.any()


@pytest.mark.slow
def test_a_standard_network_gains_about_twelve_nats(official_images):
    natural, shifts = under_pgd(official_images.first(256), 10)
    assert (natural.prediction == natural.label).mean() == pytest.approx(0.941, abs=0.005)
    assert (shifts.prediction == natural.label).mean() == 0
    assert shifts.delta_marginal.mean() == pytest.approx(11.8, abs=0.3)
    assert (shifts.delta_marginal > 0).mean() > 0.95
