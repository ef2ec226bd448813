"""What makes a step fast changes none of its numbers, and bf16 changes them within bounds."""

from copy import deepcopy

import pytest
import torch

from energy_at.attacks import fgsm, pgd, rs_fgsm, trades
from energy_at.attacks.threat import Linf
from energy_at.benchmark.rows import bare_step
from energy_at.config.build import build_module
from energy_at.energy.energies import delta_joint, delta_marginal
from energy_at.energy.pair import LogitPair
from energy_at.models import preactresnet18
from tests.helpers.nets import TinyNet
from tests.helpers.running import config

BALL = Linf(8 / 255)
METHODS = {
    "fgsm": ("attack=fgsm",),
    "fgsm der": ("attack=fgsm", "reg=der", "reg.samples=all", "reg.weight=1"),
    "fgsm der inactive": ("attack=fgsm", "reg=der", "reg.gamma=1000"),
    "rs-fgsm der": ("attack=rs_fgsm", "reg=der"),
    "rs-fgsm der from start": ("attack=rs_fgsm", "reg=der", "reg.reference=start"),
    "n-fgsm der": ("attack=n_fgsm", "reg=der"),
    "gradalign": ("attack=fgsm", "reg=gradalign"),
    "elle": ("attack=fgsm", "reg=elle", "reg.weight=1"),
    "aaer": ("attack=rs_fgsm", "reg=aaer"),
    "pgd der": ("attack=pgd", "attack.steps=3", "reg=der"),
    "trades der": ("attack=trades", "attack.steps=3", "loss=trades", "reg=der"),
    "mart": ("attack=pgd", "attack.steps=3", "loss=mart"),
    "weat": ("attack=trades", "attack.steps=3", "loss=weat_adv"),
    "awp": ("attack=fgsm", "reg=der", "training.awp.gamma=0.01"),
}
FAST = ("training.channels_last=true", "training.reuse=true", "training.skip_inactive=true")
SLOW = ("training.channels_last=false", "training.reuse=false", "training.skip_inactive=false")


def trained(switches, method, dtype, steps=20):
    """The state of the network after `steps` steps on random batches."""
    torch.manual_seed(0)
    cfg = config("dataset=synthetic", "model=small", "optimizer.lr=0.01", *METHODS[method])
    cfg.merge_with_dotlist(list(switches))
    module = build_module(cfg)
    kind = torch.channels_last if cfg.training.channels_last else torch.contiguous_format
    module.net = TinyNet().to(dtype=dtype, memory_format=kind)
    step = bare_step(module.train(), module.optimizer(module.net), "fp32")
    for x in torch.rand(steps, 8, 3, 8, 8, dtype=torch.float64).to(dtype):
        step(x.contiguous(memory_format=kind), torch.arange(8) % 4)
        module.on_after_backward()
    return module.net.state_dict()


EVERY_SUITE = ("fgsm der", "rs-fgsm der from start", "gradalign", "trades der")


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=[] if m in EVERY_SUITE else pytest.mark.slow) for m in METHODS]
)
def test_20_fast_steps_end_where_20_slow_ones_do(method):
    fast, slow = (trained(s, method, torch.float64) for s in (FAST, SLOW))
    for name, value in fast.items():
        assert (value - slow[name]).abs().max() < 1e-9, name


@pytest.mark.parametrize("method", ["fgsm", "fgsm der"])
def test_20_fast_steps_in_fp32_stay_with_the_slow_ones(method):
    # A gradient at zero has the sign of a rounding: now and then a pixel goes the other way. The
    # divergence of TRADES is flat where its attack starts, so there only fp64 can tell.
    start = trained(FAST, method, torch.float32, steps=0)
    fast, slow = (trained(s, method, torch.float32) for s in (FAST, SLOW))
    for name, value in fast.items():
        if value.is_floating_point():
            moved = (value - start[name]).norm()
            assert (value - slow[name]).norm() <= 1e-2 * moved + 1e-6, name


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return preactresnet18(channels=3, classes=10, mean=[0.5] * 3, std=[0.25] * 3, width=8)


@pytest.mark.parametrize("attack", [fgsm(BALL), rs_fgsm(BALL), pgd(BALL), trades(BALL)])
def test_bf16_perturbations_stay_in_the_ball_in_fp32(net, attack):
    x, y = torch.rand(16, 3, 16, 16), torch.arange(16) % 10
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x_adv = attack(deepcopy(net), x, y).x_adv
    assert x_adv.dtype == torch.float32
    # x + delta and the difference are rounded once each, at pixels of up to 1
    assert (x_adv.double() - x.double()).abs().max() <= BALL.eps + 2**-23
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_bf16_moves_delta_energies_by_less_than_two_hundredths_of_a_nat(net, training):
    net = deepcopy(net).train(training)
    x, y = torch.rand(32, 3, 16, 16), torch.arange(32) % 10
    x_adv = fgsm(BALL)(net, x, y).x_adv

    def shifts():
        with torch.no_grad():
            pair = LogitPair(net(x), net(x_adv), y)
        return torch.stack([delta_marginal(pair), delta_joint(pair)])

    exact = shifts()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = shifts()
    assert exact.abs().max() > 0.02
    assert (rounded - exact).abs().mean() < 0.02
    assert (rounded - exact).abs().max() > 0
