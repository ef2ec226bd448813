"""What a validation measures of a batch."""

import torch
import torch.nn.functional as F

from energy_at.attacks import Linf, fgsm, pgd
from energy_at.core.distributed import Part
from energy_at.training.validation import validation_metrics
from tests.helpers.nets import TinyNet

BALL = Linf(8 / 255)
ATTACKS = {"fgsm": fgsm(BALL), "pgd": pgd(BALL)}


def noise():
    return torch.Generator().manual_seed(1)


def test_accuracies_and_losses_are_those_of_the_images_that_the_attacks_find():
    torch.manual_seed(0)
    net, x, y = TinyNet().eval(), torch.rand(6, 3, 8, 8), torch.arange(6) % 3
    found = validation_metrics(net, ATTACKS, x, y, Part(6), noise)
    images = {"clean": x} | {
        name: attack(net, x, y, generator=noise()).x_adv for name, attack in ATTACKS.items()
    }
    for name, image in images.items():
        logits = net(image)
        right = (logits.argmax(1) == y).float().mean()
        assert found[f"acc/{name}"] == right
        torch.testing.assert_close(found[f"ce/{name}"], F.cross_entropy(logits, y).detach())
    assert found["ce/pgd"] > found["ce/fgsm"] > found["ce/clean"]
    rise = found["delta_energy/marginal"] - found["delta_energy/joint"]
    torch.testing.assert_close(rise, found["ce/pgd"] - found["ce/clean"])
