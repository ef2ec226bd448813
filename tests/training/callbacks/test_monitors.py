"""PertAlign against the gradients of the formula; pixels out of range; progress."""

import csv
import io
import re
import time
from copy import deepcopy
from unittest.mock import MagicMock

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from tqdm import tqdm

from energy_at.attacks import NoAttack, NuAT, fgsm, n_fgsm, pgd, rs_fgsm, trades
from energy_at.attacks.threat import L2, Linf
from energy_at.models.modes import frozen_running_stats
from energy_at.objectives import (
    AAER,
    DER,
    ELLE,
    AdversarialCrossEntropy,
    BoostedCrossEntropy,
    CleanCrossEntropy,
    GradAlign,
    Objective,
    TradesKL,
    Weighted,
    pert_align,
)
from energy_at.overfitting import Thresholds
from energy_at.reporting.panels import ATTACKED, DELTA_X, RATE
from energy_at.training import (
    AdversarialTraining,
    CompiledNet,
    EnergyMonitor,
    RunProgress,
    Sentinel,
    WeightPerturbation,
)
from tests.helpers.nets import TinyNet
from tests.helpers.running import TINY, TINY_BN, fitted, prepared, states_equal

BALL = Linf(0.1)
AT = {"ce": Weighted(AdversarialCrossEntropy())}
STEPS = (*TINY_BN, "attack=n_fgsm", "reg=none", "trainer.max_epochs=1", "callbacks.energy.every=2")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return TinyNet().train()


@pytest.fixture
def batch():
    return torch.rand(6, 3, 8, 8), torch.arange(6) % 4


def module(net, attack, terms, **options):
    training = AdversarialTraining(net, attack, Objective(terms), val_attacks={}, **options)
    training.observes_gradients = True
    return training


def gradient(net, x, y):
    """Of the summed cross-entropy, by a forward and a backward pass of its own."""
    x = x.detach().clone().requires_grad_()
    with frozen_running_stats(net):
        F.cross_entropy(net(x), y, reduction="sum").backward()
    return x.grad


def mean_cosine(a, b):
    total = 0.0
    for one, other in zip(a.double(), b.double(), strict=True):
        total += float((one * other).sum() / (one.square().sum() * other.square().sum()).sqrt())
    return total / len(a)


def by_the_formula(net, attack, x, y, noise):
    """``mean cos(grad CE(x + eta), grad CE(x*))`` of a network in training mode."""
    slow = deepcopy(net)
    found = attack(slow, x, y, generator=noise)
    return mean_cosine(gradient(slow, found.x_start, y), gradient(slow, found.x_adv, y))


@pytest.mark.parametrize(
    "attack",
    [fgsm(BALL), rs_fgsm(BALL), n_fgsm(BALL), pgd(BALL, steps=3), fgsm(L2(1.0))],
    ids=["fgsm", "rs", "n", "pgd", "l2"],
)
@pytest.mark.parametrize(
    "terms",
    [{}, {"more": Weighted(AdversarialCrossEntropy(), 3.0)},
     {"gradalign": Weighted(GradAlign(BALL), 0.2)}, {"elle": Weighted(ELLE(BALL), 5.0)}],
    ids=["ce", "two", "gradalign", "elle"],
)  # fmt: skip
def test_the_step_has_the_alignment_of_the_formula(net, batch, attack, terms):
    training = module(net, attack, AT | terms)
    expected = by_the_formula(net, attack, *batch, training._noise(torch.device("cpu"), 0, 0))
    step = training.training_step(batch, 0)
    step["loss"].backward()
    start_grad, x_adv = step["gradients"]
    found = pert_align(start_grad, x_adv.grad).mean()
    assert found.item() == pytest.approx(expected, abs=1e-5)
    assert -1 < expected < 1


@pytest.mark.parametrize(
    ("attack", "terms", "options"),
    [
        (NoAttack(), AT, {}),
        (trades(BALL), AT, {}),
        (fgsm(BALL), AT, {"bn_mode": "eval"}),
        (fgsm(BALL), AT, {"awp": WeightPerturbation(0.01)}),
        (fgsm(BALL), AT, {"reuse": False}),
        (fgsm(BALL), AT | {"der": Weighted(DER("all"))}, {}),
        (rs_fgsm(BALL), AT | {"aaer": Weighted(AAER())}, {}),
        (fgsm(BALL), {"clean": Weighted(CleanCrossEntropy())}, {}),
        (fgsm(BALL), {"clean": Weighted(CleanCrossEntropy()), "kl": Weighted(TradesKL())}, {}),
        (fgsm(BALL), {"boosted": Weighted(BoostedCrossEntropy())}, {}),
        (NuAT(BALL), AT, {}),
    ],
    ids=[
        "no-attack",
        "trades",
        "eval",
        "awp",
        "no-reuse",
        "der",
        "aaer",
        "clean",
        "kl",
        "mart",
        "nuat",
    ],
)
def test_a_step_without_both_gradients_of_the_cross_entropy_has_none(
    net, batch, attack, terms, options
):
    assert "gradients" not in module(net, attack, terms, **options).training_step(batch, 0)


def test_awp_has_it_until_it_begins(net, batch):
    training = module(net, fgsm(BALL), AT, awp=WeightPerturbation(0.01, warmup_epochs=1))
    assert "gradients" in training.training_step(batch, 0)


def test_nothing_is_computed_that_nobody_asked_for(net, batch):
    training = module(net, fgsm(BALL), AT)
    training.observes_gradients = False
    assert "gradients" not in training.training_step(batch, 0)


@pytest.mark.slow
def test_every_step_logs_it_and_training_is_the_same_bit_for_bit(tmp_path, monkeypatch):
    run = prepared(tmp_path / "with", *STEPS)
    expected, attack = [], run.module._run_attack

    def recorded(x, y, batch_idx, noise, targets):
        copy, generator = deepcopy(run.module.net), torch.Generator()
        generator.set_state(noise.get_state())
        expected.append(by_the_formula(copy, run.module.attack, x, y, generator))
        return attack(x, y, batch_idx, noise, targets)

    run.module._run_attack = recorded
    run.trainer.fit(run.module, run.data)
    with (tmp_path / "with" / "metrics.csv").open(newline="") as file:
        logged = [float(r["train/pert_align"]) for r in csv.DictReader(file) if r["train/loss"]]
    assert len(logged) == run.trainer.global_step > 1
    assert logged == pytest.approx(expected, abs=1e-4)

    def unobserved(self, trainer, pl_module):
        pl_module.observes_clean = True

    monkeypatch.setattr(EnergyMonitor, "on_fit_start", unobserved)
    without = fitted(tmp_path / "without", *STEPS)
    assert "pert_align" not in (tmp_path / "without" / "metrics.csv").read_text()
    assert states_equal(run.module, without.module)


def test_a_compiled_network_keeps_its_graphs(net):
    training, trainer = module(net, fgsm(BALL), AT), MagicMock(Trainer, callbacks=[CompiledNet()])
    EnergyMonitor().on_fit_start(trainer, training)
    assert training.observes_clean
    assert not training.observes_gradients


@pytest.mark.parametrize(
    ("attack", "terms"),
    [(fgsm(BALL), AT | {"der": Weighted(DER("all"))}), (trades(BALL), AT), (NoAttack(), AT)],
    ids=["der", "trades", "no-attack"],
)
def test_a_threshold_of_what_is_not_logged_is_refused(tmp_path, attack, terms):
    limits = Thresholds(pert_align=0.25)
    sentinel = Sentinel(tmp_path, classes=4, der=Weighted(DER("all")), thresholds=limits)
    sentinel.require_fitting(MagicMock(Trainer), Objective(AT), rs_fgsm(BALL))
    with pytest.raises(ValueError, match=r"^pert_align must be null, unless .*, got 0\.25"):
        sentinel.require_fitting(MagicMock(Trainer), Objective(terms), attack)


# Progress


def test_where_there_is_no_terminal_every_epoch_is_one_line(tmp_path, capsys):
    overrides = [o for o in TINY if not o.startswith("callbacks.progress")]
    run = prepared(tmp_path, *overrides, "trainer.max_epochs=2")
    run.trainer.callbacks.append(RunProgress())
    run.trainer.fit(run.module, run.data)
    cells = r"dE\(x\) [+-]\d\.\d{3}, adv \d+ %, \d+ img/s, held-out clean \d+\.\d %"
    ends = r", fgsm \d+\.\d %, pgd2 \d+\.\d %, \d+:\d\d left"
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for number, line in enumerate(lines, 1):
        assert re.fullmatch(rf"epoch {number}/2: {cells}{ends}", line)
    assert lines[-1].endswith(", 0:00 left")


def test_an_epoch_without_validation_shows_no_accuracy_of_another(tmp_path, capsys):
    overrides = [o for o in TINY if not o.startswith("callbacks.progress")]
    every = ("trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2")
    run = prepared(tmp_path, *overrides, *every)
    run.trainer.callbacks.append(RunProgress())
    run.trainer.fit(run.module, run.data)
    lines = capsys.readouterr().err.splitlines()
    assert ["held-out" in line for line in lines] == [False, True, False]


@pytest.mark.parametrize(("value", "cell"), [(-4e-4, "+0.000"), (-6e-4, "-0.001"), (0.0, "+0.000")])
def test_a_delta_energy_that_rounds_to_zero_has_no_minus(value, cell):
    assert f"{value:{DELTA_X.form}}" == cell


def test_the_bar_of_a_long_training_fits_80_columns():
    trainer = MagicMock(Trainer, max_epochs=200, current_epoch=111, global_step=100_000)
    trainer.estimated_stepping_batches = 200_000
    monitor = EnergyMonitor()
    monitor.latest = {DELTA_X.key: -12.345, ATTACKED.key: 1.0, RATE.key: 120_000.0}
    trainer.callbacks = [monitor]
    progress, out = RunProgress(), io.StringIO()
    progress._bar = tqdm(file=out, ncols=80, bar_format="{desc}", mininterval=0)
    progress._clock = (time.monotonic() - 36_000, 0)
    progress._draw(trainer, progress._latest(trainer))
    line = out.getvalue().rpartition("\r")[2]
    assert line.startswith("epoch 112/200 |")
    assert line.rstrip().endswith("| dE(x) -12.345, adv 100 %, 120000 img/s, 10:00:00 left")
    assert len(line.rstrip()) <= 80
