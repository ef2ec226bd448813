import torch

from energy_at.attacks import fgsm, pgd
from energy_at.robustness import robust_accuracy
from energy_at.threat import Linf
from tests.nets import TinyNet

BALL = Linf(0.1)
ATTACKS = {"fgsm": fgsm(BALL), "pgd": pgd(BALL, steps=5)}


def batches(x, y, size):
    return list(zip(x.split(size), y.split(size), strict=True))


def test_every_share_is_a_count_of_surviving_images():
    net, x = TinyNet().eval(), torch.rand(20, 3, 8, 8)
    y = net(x).argmax(1)
    y[:5] = (y[:5] + 1) % 4  # wrong from the start
    found = robust_accuracy(net, batches(x, y, 20), {"fgsm": fgsm(BALL)})
    survivors = (net(fgsm(BALL)(net, x, y).x_adv).argmax(1) == y) & (net(x).argmax(1) == y)
    assert found == {"clean": 0.75, "fgsm": survivors.sum().item() / 20, "n": 20}


def test_a_batch_that_is_all_wrong_is_not_attacked():
    net, x = TinyNet().eval(), torch.rand(4, 3, 8, 8)
    y = (net(x).argmax(1) + 1) % 4
    found = robust_accuracy(net, batches(x, y, 2), ATTACKS)
    assert found == {"clean": 0.0, "fgsm": 0.0, "pgd": 0.0, "n": 4}


def test_deterministic_attacks_give_the_same_for_any_batch_size():
    net, x = TinyNet(), torch.rand(12, 3, 8, 8)
    y = net.eval()(x).argmax(1)
    found = [robust_accuracy(net, batches(x, y, n), {"fgsm": fgsm(BALL)}) for n in (3, 12)]
    assert found[0] == found[1]


def test_accuracy_is_measured_in_full_precision_and_the_network_is_left_alone():
    net, x = TinyNet().train(), torch.rand(12, 3, 8, 8)
    y = torch.arange(12) % 4
    before = {k: v.clone() for k, v in net.state_dict().items()}
    exact = robust_accuracy(net, batches(x, y, 4), ATTACKS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert robust_accuracy(net, batches(x, y, 4), ATTACKS) == exact
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
