import io
import os
import re
import sys
from dataclasses import dataclass, fields, replace

import pytest
import torch

from energy_at.attacks import WorstCase, fgsm, pgd, restarted_pgd
from energy_at.attacks.registry import CLEAN, AttackKey
from energy_at.attacks.threat import L2, Linf
from energy_at.data import ImageSet
from energy_at.evaluation import robustness
from energy_at.evaluation.robustness import Evaluator, Pace
from energy_at.models import preactresnet18
from tests.helpers.nets import TinyNet

BALL = Linf(0.1)
ATTACKS = {"fgsm": fgsm(BALL), "pgd": pgd(BALL, steps=5)}
PGD = AttackKey("pgd")


def keyed(attacks):
    return {AttackKey(name): attack for name, attack in attacks.items()}


def exam_of(net, n=20, wrong=0, **settings):
    """Random images that the network classifies right, but for the first few."""
    pixels = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        scores = net.eval()(pixels / 255)
    y = scores.argmax(1)
    y[:wrong] = (y[:wrong] + 1) % scores.shape[1]
    return Evaluator(ImageSet(pixels, y), **settings)


def test_every_share_is_a_count_of_surviving_images():
    net = TinyNet()
    exam = exam_of(net, wrong=5)
    x, y = exam.images.pixels / 255, exam.images.labels
    survivors = (net(fgsm(BALL)(net, x, y).x_adv).argmax(1) == y) & (net(x).argmax(1) == y)
    found = exam.accuracies(net, {"fgsm": fgsm(BALL)})
    assert found == {"clean": 0.75, "fgsm": survivors.sum().item() / 20, "n": 20}


def test_images_that_are_wrong_are_not_attacked():
    net = TinyNet()
    found = exam_of(net, 4, wrong=4, batch_size=2).accuracies(net, ATTACKS)
    assert found == {"clean": 0.0, "fgsm": 0.0, "pgd": 0.0, "n": 4}


class Noisy(TinyNet):
    def forward(self, x):
        return super().forward(x) + torch.randn(len(x), 1) * torch.eye(10)[0, :4]


def test_what_a_network_draws_at_test_time_follows_the_seed_alone():
    net = Noisy()
    exam, before = exam_of(net, 40), torch.get_rng_state()
    first = exam.outcomes(net, keyed(ATTACKS))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)  # whatever was drawn before
    again = exam.outcomes(net, keyed(ATTACKS))
    other = replace(exam, seed=1).outcomes(net, keyed(ATTACKS))
    for key, found in first.items():
        assert torch.equal(found.confidence, again[key].confidence)
        assert not torch.equal(found.confidence, other[key].confidence)


@pytest.mark.parametrize("ball", [Linf(0.02), L2(0.3)], ids=["linf", "l2"])
def test_any_batch_size_gives_the_same_outcome_of_every_image(ball):
    net = preactresnet18(channels=3, classes=10, mean=[0.5] * 3, std=[0.25] * 3, width=8)
    attacks = keyed({"fgsm": fgsm(ball), "pgd": restarted_pgd(ball, steps=3, restarts=2)})
    whole = exam_of(net, 40, wrong=7)
    expected = whole.correct(net, attacks)
    assert 0 < expected[PGD].sum() < expected[CLEAN].sum()
    for batch_size in (5, 39):
        found = Evaluator(whole.images, batch_size=batch_size).correct(net, attacks)
        assert all(torch.equal(found[name], right) for name, right in expected.items())


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_images_that_are_found_are_bit_by_bit_those_of_any_batch_size(channels, channels_last):
    mean, std = [0.5] * channels, [0.25] * channels
    net = preactresnet18(channels=channels, classes=10, mean=mean, std=std, width=4).eval()
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
    pixels = torch.randint(0, 256, (34, channels, 8, 8), dtype=torch.uint8)
    exam = Evaluator(ImageSet(pixels, torch.arange(34) % 10), channels_last=channels_last)
    found = {}
    for batch_size in (34, 33, 7):
        with exam.evaluation_mode(net) as tiled:
            x_adv = [
                pgd(L2(0.5), steps=3)(tiled, *exam.batch(part), generator=exam.noise(part)).x_adv
                for part in torch.arange(34).split(batch_size)
            ]
        found[batch_size] = torch.cat(x_adv)
    assert all(torch.equal(images, found[34]) for images in found.values())


def test_restarts_go_on_with_the_images_that_are_left():
    net = TinyNet().eval()
    exam = exam_of(net, 30, wrong=4)
    weak = [pgd(Linf(0.005), steps=1)] * 4
    searched = []

    @dataclass(frozen=True)
    class Noted(type(weak[0])):
        def run(self, model, x, y, options):
            found = super().run(model, x, y, options)
            searched.append((len(x), int((model(found.x_adv).argmax(1) == y).sum())))
            return found

    attempts = [Noted(**{f.name: getattr(a, f.name) for f in fields(a)}) for a in weak]
    found = exam.correct(net, {PGD: WorstCase(attempts)})[PGD]
    assert [sizes[0] for sizes in searched] == [26, *(sizes[1] for sizes in searched[:-1])]
    assert found.sum() == searched[-1][1]


def test_a_network_whose_logits_are_not_finite_is_refused():
    net = TinyNet()
    net.layers[-1].bias.data[0] = torch.nan
    with pytest.raises(ValueError, match="logits that are not finite"):
        Evaluator(exam_of(TinyNet()).images).correct(net, keyed(ATTACKS))


def test_images_outside_the_ball_of_their_attack_are_no_result():
    class Beyond(type(pgd(BALL))):
        bounds = Linf(0.05)

    searched = pgd(Linf(0.1), steps=1)
    attack = Beyond(**{f.name: getattr(searched, f.name) for f in fields(searched)})
    net = TinyNet()
    with pytest.raises(ValueError, match=r"a pixel is 0.05 outside \(attack pgd\): project"):
        exam_of(net).correct(net, {PGD: attack})


def test_an_exam_leaves_the_network_as_it_was():
    net = TinyNet().train()
    net.layers[1].eval()
    exam = exam_of(TinyNet())
    before = {key: value.clone() for key, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    exam.correct(net, keyed(ATTACKS))
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_the_time_left_is_that_of_the_passes_at_the_rate_so_far(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(robustness.time, "monotonic", lambda: now[0])
    pace = Pace(planned=20.0, later=30.0)
    pace.begin(5.0)
    now[0] += 10
    pace.count(20.0)  # two passes a second
    assert pace.estimate(240.0) == "2:00"
    # 10 of this attack, 15 for each of 4 images, 30 later
    assert pace.left(images=4, missing=10.0) == "0:50"


def test_a_long_attack_is_announced_with_the_time_of_its_passes(capsys, monkeypatch):
    monkeypatch.setattr(robustness, "LONG", 5)
    net, attacks = TinyNet(), keyed({"fgsm": fgsm(BALL), "pgd": pgd(BALL, steps=5)})
    exam_of(net, 10, wrong=2, progress=True).correct(net, attacks)
    fast, announced, slow = capsys.readouterr().err.splitlines()  # not on a terminal: a line each
    assert re.fullmatch(r"fgsm: \d+\.\d % correct, at most 0:\d\d left in all", fast)
    assert re.fullmatch(r"PGD on 8 images: about 0:\d\d or less", announced)
    assert re.fullmatch(r"pgd: \d+\.\d % correct, at most 0:00 left in all", slow)


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def fileno(self):
        return 2


def test_the_bars_of_the_longest_attack_fit_80_columns_whole(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((80, 24)))
    monkeypatch.setattr(Pace, "estimate", lambda *_: "11:18:38")
    net = TinyNet()
    exam = exam_of(net, 10_000, batch_size=1000, progress=True)
    exam.correct(net, {AttackKey("autoattack", "8/255"): WorstCase([fgsm(BALL)] * 4)})
    lines = terminal.getvalue().split("\r")
    assert max(map(len, lines)) <= 80
    drawn = [line for line in lines if line.startswith("autoattack") and "left" in line]
    assert drawn
    assert all(line.endswith(" % correct, 11:18:38 left in all") for line in drawn)
