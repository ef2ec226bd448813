"""Work of a step of training in floating point operations, whatever machine it runs on.

On images of 8x8 pixels, which cost a sixteenth of those of 32x32.
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from energy_at.attacks import fgsm, pgd, rs_fgsm, trades
from energy_at.attacks.threat import Linf
from energy_at.models import preactresnet18
from energy_at.objectives import (
    DER,
    AdversarialCrossEntropy,
    CleanCrossEntropy,
    GradAlign,
    Objective,
    TradesKL,
    Weighted,
)
from energy_at.training import AdversarialTraining

BALL = Linf(8 / 255)
AT = {"ce": Weighted(AdversarialCrossEntropy())}
TRADES = {"clean_ce": Weighted(CleanCrossEntropy()), "kl": Weighted(TradesKL(), 6.0)}
GRADALIGN = {"gradalign": Weighted(GradAlign(BALL))}


def der(samples="all", **options):
    return {"der": Weighted(DER(samples, **options), 2.0)}


@pytest.fixture(scope="module")
def net():
    return preactresnet18(channels=3, classes=10, mean=[0.5] * 3, std=[0.25] * 3)


def gflop(work, size):
    """Of one of two images, if they were of 32x32."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 2e9 * (32 / size) ** 2


def step(net, attack, terms, *, bn_mode="batch", skip_flat=True, size=8):
    """Work of a step for one image, and the terms of its loss."""
    objective = Objective(terms, skip_flat=skip_flat)
    training = AdversarialTraining(
        net, attack, objective, val_attacks={"pgd": pgd(BALL)}, bn_mode=bn_mode
    )
    batch, parts = (torch.rand(2, 3, size, size), torch.tensor([0, 1])), {}

    def taken():
        output = training.training_step(batch, 0)
        parts.update(output["parts"])
        output["loss"].backward()

    done = gflop(taken, size)
    net.zero_grad()
    return done, parts


@pytest.mark.parametrize("size", [32, 8])
def test_a_forward_pass_is_the_unit(net, size):
    with torch.no_grad():
        done = gflop(lambda: net(torch.rand(2, 3, size, size)), size)
    assert done == pytest.approx(1.11, abs=0.005)


@pytest.mark.parametrize(
    ("attack", "terms", "bn_mode", "most"),
    [
        (fgsm(BALL), AT, "batch", 5.6),
        (fgsm(BALL), AT | der(), "batch", 7.8),
        (rs_fgsm(BALL), AT | der(), "batch", 8.9),
        (rs_fgsm(BALL), AT | der(reference="start"), "batch", 7.8),
        (pgd(BALL), AT, "batch", 25.7),
        (trades(BALL), TRADES, "eval", 30.5),
        (fgsm(BALL), AT | GRADALIGN, "batch", 12.4),
    ],
    ids=["fgsm", "der", "rs+der", "rs+der-start", "pgd10", "trades10", "gradalign"],
)
def test_work_of_a_step_in_gflop_per_image(net, attack, terms, bn_mode, most):
    done, parts = step(net, attack, terms, bn_mode=bn_mode)
    assert 0.95 * most < done <= most
    assert parts.get("der", 1) > 0


@pytest.mark.parametrize(
    ("idle", "size"), [(der(gamma=1e3), 8), (der("abnormal"), 32)], ids=["gamma", "abnormal"]
)
def test_der_costs_nothing_where_it_is_not_active(net, idle, size):
    done, parts = step(net, fgsm(BALL), AT | idle, size=size)
    assert parts["der"] == 0
    assert 5.5 < done <= 5.6


def test_der_that_waits_for_no_device_costs_no_more(net):
    waits, hurries = (step(net, fgsm(BALL), AT | der(), skip_flat=flat) for flat in (True, False))
    assert hurries[0] == waits[0]


def test_der_costs_nothing_beside_trades(net):
    attack = trades(BALL, steps=1)
    alone, both = (step(net, attack, TRADES | terms, bn_mode="eval") for terms in ({}, der()))
    assert both[1]["der"] > 0
    assert both[0] == alone[0]
