"""What a validation measures of a batch."""

import torch
import torch.nn.functional as F

from energy_at.attacks import Linf, fgsm, pgd
from energy_at.core.distributed import Part
from energy_at.energy.energies import shift_norm
from energy_at.energy.pair import LogitPair
from energy_at.training.validation import names_of_metrics, validation_metrics
from tests.helpers.nets import TinyNet
from tests.helpers.running import TINY, fitted

BALL = Linf(8 / 255)
ATTACKS = {"fgsm": fgsm(BALL), "pgd": pgd(BALL)}


def noise():
    return torch.Generator().manual_seed(1)


def test_accuracies_and_losses_are_those_of_the_images_that_the_attacks_find():
    torch.manual_seed(0)
    net, x, y = TinyNet().eval(), torch.rand(6, 3, 8, 8), torch.arange(6) % 3
    percentiles = {}
    found = validation_metrics(net, ATTACKS, x, y, Part(6), noise, "val", percentiles)
    assert sorted(names_of_metrics("val", ATTACKS)) == sorted([*found, *percentiles])
    images = {"clean": x} | {
        name: attack(net, x, y, generator=noise()).x_adv for name, attack in ATTACKS.items()
    }
    for name, image in images.items():
        logits = net(image)
        right = (logits.argmax(1) == y).float().mean()
        assert found[f"val/acc/{name}"] == right
        torch.testing.assert_close(found[f"val/ce/{name}"], F.cross_entropy(logits, y).detach())
    assert found["val/ce/pgd"] > found["val/ce/fgsm"] > found["val/ce/clean"]
    rise = found["val/delta_energy/marginal"] - found["val/delta_energy/joint"]
    torch.testing.assert_close(rise, found["val/ce/pgd"] - found["val/ce/clean"])


def test_a_percentile_is_that_of_all_images_however_they_are_batched():
    torch.manual_seed(0)
    net, x, y = TinyNet().eval(), torch.rand(20, 3, 8, 8), torch.arange(20) % 3
    whole, parts = {}, {}
    validation_metrics(net, ATTACKS, x, y, Part(20), noise, "val", whole)
    for a, b in zip(x.split(7), y.split(7), strict=True):
        validation_metrics(net, {"fgsm": ATTACKS["fgsm"]}, a, b, Part(len(a)), noise, "val", parts)
    pair = LogitPair(net(x), net(ATTACKS["fgsm"](net, x, y).x_adv), y)
    expected = torch.quantile(shift_norm(pair).detach(), 0.99)
    torch.testing.assert_close(whole["val/fgsm/delta_energy/shift_p99"].compute(), expected)
    torch.testing.assert_close(parts["val/delta_energy/shift_p99"].compute(), expected)
    assert set(whole) == {"val/fgsm/delta_energy/shift_p99", "val/delta_energy/shift_p99"}


def test_a_validation_does_not_depend_on_its_batch_size(tmp_path):
    def logged(size):
        options = (*TINY, "trainer.limit_train_batches=2", f"dataset.eval_batch_size={size}")
        run = fitted(tmp_path / str(size), *options, "trainer.max_epochs=1")
        values = dict(run.trainer.callback_metrics)
        run.trainer.validate(run.module, run.data, verbose=False)
        again = run.trainer.callback_metrics
        assert all(again[name] == values[name] for name in names)
        return [values[name] for name in names]

    shifts = [f"delta_energy/{name}" for name in ("shift_norm", "shift_p99")]
    names = [f"val/{attack}{shift}" for attack in ("fgsm/", "") for shift in shifts]
    names += ["val/ce/pgd2", "val/acc/pgd2"]
    one, other = logged(128), logged(7)
    for mean, most in (one[:2], one[2:4]):
        assert most > mean > 0
    torch.testing.assert_close(one, other)
