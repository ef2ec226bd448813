"""Work of a step of training in floating point operations, whatever machine it runs on."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from energy_at.attacks import fgsm, pgd, trades
from energy_at.models import preactresnet18
from energy_at.objectives import (
    AdversarialCrossEntropy,
    CleanCrossEntropy,
    DeltaEnergy,
    GradAlign,
    Objective,
    TradesKL,
    Weighted,
)
from energy_at.threat import Linf
from energy_at.training import AdversarialTraining

BALL = Linf(8 / 255)
AT = {"ce": Weighted(AdversarialCrossEntropy())}
TRADES = {"clean_ce": Weighted(CleanCrossEntropy()), "kl": Weighted(TradesKL(), 6.0)}


def der(samples):
    return {"der": Weighted(DeltaEnergy(samples), 2.0)}


@pytest.fixture(scope="module")
def net():
    return preactresnet18(channels=3, classes=10, mean=[0.5] * 3, std=[0.25] * 3)


def gflop(work):
    """Of one of the two images."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 2e9


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 32, 32)


def test_a_forward_pass_is_the_unit(net, images):
    with torch.no_grad():
        assert gflop(lambda: net(images)) == pytest.approx(1.11, abs=0.005)


def work(net, images, attack, terms, *, bn_mode="batch", skip_flat=True):
    """Of one of the two images in a step; and the terms of its loss."""
    objective = Objective(terms, skip_flat=skip_flat)
    training = AdversarialTraining(
        net, attack, objective, val_attacks={"pgd": pgd(BALL)}, bn_mode=bn_mode
    )
    parts = {}

    def step():
        output = training.training_step((images, torch.tensor([0, 1])), 0)
        parts.update(output["parts"])
        output["loss"].backward()

    done = gflop(step)
    net.zero_grad()
    return done, parts


def test_der_costs_a_backward_pass_where_it_is_active(net, images):
    done, parts = work(net, images, fgsm(BALL), AT | der("all"), skip_flat=False)
    assert parts["der"] > 0
    assert 7.7 < done <= 7.8


def test_der_costs_nothing_while_no_example_is_abnormal(net, images):
    done, parts = work(net, images, fgsm(BALL), AT | der("abnormal"))
    assert parts["der"] == 0
    assert 5.5 < done <= 5.6


def test_der_costs_nothing_beside_trades(net, images):
    done, parts = work(net, images, trades(BALL), TRADES | der("all"), bn_mode="eval")
    assert parts["der"] > 0
    assert 29.9 < done <= 30.5


def test_gradalign_takes_the_clean_gradient_from_the_attack(net, images):
    gradalign = {"gradalign": Weighted(GradAlign(BALL))}
    done, _ = work(net, images, fgsm(BALL), AT | gradalign)
    assert 12 < done <= 12.4
