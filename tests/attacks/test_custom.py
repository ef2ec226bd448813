"""Attacks of other libraries: what they are given, and what they may return."""

import random

import numpy as np
import pytest
import torch

from energy_at.attacks import L2, CustomAttack, Linf, pgd
from energy_at.models import preactresnet18
from tests.helpers.nets import TinyNet

BALL = Linf(0.1)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.rand(6, 3, 8, 8), torch.arange(6) % 3


def test_the_search_gets_what_it_names(batch):
    seen = {}

    def search(model, x, y, norm, eps):
        seen.update(norm=norm, eps=eps)
        return x

    for ball, norm in ((Linf(0.1), "linf"), (L2(0.5), "l2")):
        CustomAttack(ball, search)(TinyNet(), *batch)
        assert seen == {"norm": norm, "eps": ball.eps}


def test_an_attack_of_ours_given_as_another_finds_the_same(batch):
    net, own = TinyNet().eval(), pgd(BALL, steps=3)

    def search(model, x, y):
        return own(model, x, y, generator=torch.Generator().manual_seed(7)).x_adv

    expected = own(net, *batch, generator=torch.Generator().manual_seed(7)).x_adv
    found = CustomAttack(BALL, search)(net, *batch).x_adv
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_global_noise_follows_the_seed_and_is_restored(batch):
    def search(model, x, y, eps):
        delta = eps * (2 * torch.rand_like(x) - 1)
        return (x + delta * float(np.random.rand()) * random.random()).clamp(0, 1)

    def found(seed):
        generator = torch.Generator().manual_seed(seed)
        return CustomAttack(BALL, search)(TinyNet(), *batch, generator=generator).x_adv

    net_draws = TinyNet()  # so that states below are those before the attacks
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    generator = torch.Generator().manual_seed(1)
    one = CustomAttack(BALL, search)(net_draws, *batch, generator=generator).x_adv
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
    assert torch.equal(found(1), one)
    assert not torch.equal(found(2), one)


@pytest.mark.parametrize(
    ("ball", "answer", "said"),
    [
        (BALL, lambda x: torch.cat([x[:4], x[4:] + 0.15 * (x[4:] < 0.5)]),
         r"in the Linf ball of 0\.1: 2 of 6 are not, by up to 0\.05$"),
        (L2(1.0), lambda x: (x + 0.2).clamp(0, 1), r"in the L2 ball of 1: 6 of 6 are not, by up "),
        (BALL, lambda x: x - 0.05, r"in \[0, 1\]: 6 of 6 are not, by up to 0\.0"),
        (BALL, lambda x: x / 0, "finite: 6 of 6 are not$"),
        (BALL, lambda x: x[:2], r"of shape \(6, 3, 8, 8\), got of shape \(2, 3, 8, 8\)"),
        (BALL, lambda x: x.numpy(), "got <class 'numpy.ndarray'>"),
    ],
)  # fmt: skip
def test_images_that_are_no_answer_are_refused(batch, ball, answer, said):
    def search(model, x, y):
        return answer(x)

    with pytest.raises(ValueError, match=f"^mine must return images .*{said}"):
        CustomAttack(ball, search, "mine")(TinyNet(), *batch)


def test_a_search_that_takes_other_arguments_is_refused_when_it_is_made():
    with pytest.raises(ValueError, match=r"^attack\.mine must take model, x and y: too many"):
        CustomAttack(BALL, lambda model, x: x + model, "mine")
    # eps is handed over
    CustomAttack(BALL, lambda model, x, y, eps: x + model + y + eps, "mine")


def test_a_rounding_is_removed_and_the_network_left_as_it_was(batch):
    def search(model, x, y):
        model(x.requires_grad_()).sum().backward()
        return x + 0.1 + 1e-6

    net = TinyNet()
    x = 0.5 * batch[0]
    found = CustomAttack(BALL, search)(net, x, batch[1]).x_adv
    assert (found - x).max() <= 0.1 + 6e-8
    assert all(parameter.grad is None for parameter in net.parameters())


def test_an_attack_in_training_mode_moves_no_running_statistics(batch):
    def search(model, x, y):
        model(x)
        return x

    net = preactresnet18(channels=3, classes=3, width=2, mean=[0.5] * 3, std=[0.5] * 3).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    CustomAttack(BALL, search)(net, *batch)
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_modes_that_a_search_leaves_are_restored_and_other_weights_refused(batch):
    net = TinyNet().eval()
    modes = {module: module.training for module in net.modules()}

    def trains(model, x, y):
        model.train()
        return x

    CustomAttack(BALL, trains)(net, *batch)
    assert {module: module.training for module in net.modules()} == modes

    def fits(model, x, y):
        next(model.parameters()).data.mul_(2)
        return x

    with pytest.raises(ValueError, match=r"^mine must leave the network as it is: it changes lay"):
        CustomAttack(BALL, fits, "mine")(net, *batch)
