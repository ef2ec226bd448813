"""Restarts of an attack, the worst case of several, and what all of their parts do."""

import pytest
import torch

from energy_at.attacks import (
    Restarts,
    WorstCase,
    fgsm,
    pgd,
    trades,
)
from energy_at.attacks.threat import L2, Linf
from tests.attacks.test_gradient import radii, raised, seeded, trained

EPS = 8 / 255
BALLS = [Linf(EPS), L2(0.5)]
balls = pytest.mark.parametrize("ball", BALLS, ids=["linf", "l2"])


# Compositions


@balls
@pytest.mark.parametrize("make", [pgd, trades], ids=["pgd", "trades"])
def test_restarts_keep_the_best_run_of_each_image(make, ball):
    net, x, y = trained(images=32)
    attack = make(ball, steps=2, alpha=ball.eps / 10)
    generator = seeded()
    runs = [attack(net, x, y, generator=generator).x_adv for _ in range(4)]
    gains = torch.stack([raised(attack.goal, net, x, y, run) for run in runs])
    assert len(gains.argmax(0).unique()) > 1
    for times in range(1, 5):
        found = Restarts(attack, times)(net, x, y, generator=seeded()).x_adv
        best = gains[:times].max(0)
        torch.testing.assert_close(raised(attack.goal, net, x, y, found), best.values)
        for i, winner in enumerate(best.indices):
            assert torch.equal(found[i], runs[winner][i])


def test_one_restart_is_the_attack_itself(net, batch):
    attack = pgd(Linf(EPS), steps=2)
    once, plain = (a(net, *batch, generator=seeded()).x_adv for a in (Restarts(attack, 1), attack))
    assert torch.equal(once, plain)


def test_survivors_of_the_worst_case_survive_each_part():
    net, x, y = trained(images=64)
    parts = [
        fgsm(Linf(0.01)),
        fgsm(L2(0.15)),
        fgsm(Linf(0.012), alpha=0.003, steps=4),
    ]

    def survivors(attack):
        return net(attack(net, x, y).x_adv).argmax(1) == y

    alone = torch.stack([survivors(part) for part in parts])
    assert (alone.any(1) & ~alone.all(1)).all()
    assert torch.equal(survivors(WorstCase(parts)), alone.all(0))


def test_the_worst_case_leaves_lost_images_as_they_are():
    net, x, y = trained(images=16)
    y = (y + torch.arange(16) % 2) % 4  # every other label is wrong from the start
    x_adv = WorstCase([fgsm(Linf(EPS)), fgsm(L2(0.5))])(net, x, y).x_adv
    assert torch.equal(x_adv[1::2], x[1::2])
    assert (radii(Linf(EPS), x_adv - x)[::2] > 0).all()


def test_the_worst_case_stops_at_success():
    net, x, y = trained(images=64)
    first = fgsm(Linf(EPS))
    found = first(net, x, y).x_adv
    fooled = net(found).argmax(1) != y
    assert fooled.sum() > 0
    x_adv = WorstCase([first, fgsm(Linf(0.5))])(net, x, y).x_adv
    assert torch.equal(x_adv[fooled], found[fooled])


@pytest.mark.parametrize("times", [0, -1])
def test_no_restart_at_all_is_refused(times):
    with pytest.raises(ValueError, match="restarts"):
        pgd(Linf(EPS), restarts=times)


def test_steps_are_asked_where_the_attack_climbs_the_loss():
    ball = Linf(8 / 255)
    assert fgsm(ball).climbs_loss
    assert pgd(ball, restarts=2).climbs_loss
    assert not trades(ball).climbs_loss
