"""Standard training, and that it is nothing else."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

from energy_at.attacks import NoAttack, pgd
from energy_at.attacks.threat import Linf
from energy_at.objectives import AdversarialCrossEntropy, Objective, Weighted
from energy_at.training import AdversarialTraining
from tests.helpers.nets import TinyNet


def test_no_attack_changes_no_image_and_asks_no_network(batch):
    def never(_):
        raise AssertionError("no forward pass")

    found = NoAttack().run(never, *batch)
    assert found.x_adv.equal(batch[0])
    assert NoAttack().scaled(0.5) == NoAttack()


@pytest.mark.parametrize("bn_mode", ["eval", "batch"])
def test_training_without_an_attack_is_a_plain_cross_entropy_loop(bn_mode):
    net = TinyNet()
    plain = deepcopy(net).train()
    objective = Objective({"ce": Weighted(AdversarialCrossEntropy())})
    training = AdversarialTraining(
        net, NoAttack(), objective, val_attacks={"pgd": pgd(Linf(0.1))}, bn_mode=bn_mode
    ).train()
    optimizers = [torch.optim.SGD(n.parameters(), 0.1, momentum=0.9) for n in (net, plain)]
    for step in range(4):
        x, y = torch.rand(6, 3, 8, 8), torch.randint(0, 4, (6,))
        losses = (training.training_step((x, y), step)["loss"], F.cross_entropy(plain(x), y))
        for optimizer, loss in zip(optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.testing.assert_close(*losses)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value)
