"""Presets train like the experiments of their names."""

from copy import deepcopy

import pytest

from energy_at.attacks import pgd
from energy_at.attacks.threat import Linf
from energy_at.objectives import DER, Weighted
from energy_at.training import FastAT, StandardAT, Trades
from tests.helpers.running import TINY_BN, config, prepared, states_equal

BALL = Linf(8 / 255)


def der(samples="all", weight=2.0, **options):
    return {"der": Weighted(DER(samples, **options), weight)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "preset"),
    [
        pytest.param(
            "standard_at",
            lambda net, ball, **o: StandardAT(net, ball, **o),
            marks=pytest.mark.slow,
        ),
        (
            "fast_at_der",
            lambda net, ball, **o: FastAT(net, ball, der("abnormal", weight=20.0), **o),
        ),
        pytest.param(
            "trades_der",
            lambda net, ball, **o: Trades(net, ball, der("all", weight=1.0), **o),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_preset_trains_like_the_experiment_of_its_name(tmp_path, experiment, preset):
    ten = "validation.attacks.pgd.steps=10"  # as presets validate
    overrides = (*TINY_BN, f"experiment={experiment}", "trainer.max_epochs=1", ten)
    wired = prepared(tmp_path, *overrides)
    cfg = config(*overrides)
    by_hand = preset(
        deepcopy(wired.module.net),
        Linf(8 / 255),
        optimizer=wired.module.optimizer,
        schedule=wired.module.schedule,
        seed=cfg.seed,
    )
    wired.trainer.fit(wired.module, wired.data)
    again = prepared(tmp_path, *overrides)
    again.trainer.fit(by_hand, again.data)
    assert states_equal(wired.module, by_hand)


def test_fast_at_refuses_a_multi_step_attack(net):
    with pytest.raises(ValueError, match="single-step"):
        FastAT(net, BALL, attack=pgd(BALL))
