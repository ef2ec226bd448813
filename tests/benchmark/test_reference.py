"""The reference loops compute what our training computes."""

from copy import deepcopy
from itertools import chain

import pytest
import torch
from torch import nn

from energy_at.attacks import fgsm, n_fgsm, pgd, rs_fgsm, trades
from energy_at.attacks.threat import L2, Linf
from energy_at.benchmark import reference
from energy_at.benchmark.rows import bare_step
from energy_at.data import ImageSet
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
from tests.helpers.nets import TinyNet

BALL = Linf(8 / 255)
AT = {"ce": Weighted(AdversarialCrossEntropy())}
KL = {"clean": Weighted(CleanCrossEntropy()), "kl": Weighted(TradesKL(), 6.0)}


def der(samples="all", weight=5.0):
    return {"der": Weighted(DER(samples), weight)}


METHODS = {
    "fgsm": (fgsm(BALL), AT),
    "fgsm der": (fgsm(BALL), AT | der()),
    "noise der abnormal": (n_fgsm(BALL, alpha=1e-4), AT | der("abnormal")),
    "rs-fgsm der": (rs_fgsm(BALL), AT | der()),
    "n-fgsm der": (n_fgsm(BALL), AT | der()),
    "gradalign": (fgsm(BALL), AT | {"gradalign": Weighted(GradAlign(BALL), 0.5)}),
    "pgd": (pgd(BALL), AT),
    "trades": (trades(BALL), KL),
    "trades der": (trades(BALL), KL | der()),
}


def module(net, method, **options):
    attack, terms = METHODS[method]
    bn_mode = "eval" if method.startswith("trades") else "batch"
    return AdversarialTraining(
        net, attack, Objective(terms, skip_flat=True), val_attacks={}, bn_mode=bn_mode, **options
    )


def sgd(net):
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_a_reference_step_ends_at_our_weights(batch, method, dtype, error):
    x, y = batch[0].to(dtype), batch[1]
    theirs = TinyNet().to(dtype)
    ours = deepcopy(theirs).to(memory_format=torch.channels_last)
    start = deepcopy(theirs)
    training = module(ours, method)
    bare_step(training, sgd(ours), "fp32")(x.contiguous(memory_format=torch.channels_last), y)
    search, terms = reference.terms_of(training.attack, training.objective)
    noise = training._noise(x.device, 0, 1)
    reference.train_step(theirs, sgd(theirs), x, y, search, terms, noise)
    moved = [(b - a).norm() for a, b in zip(start.parameters(), ours.parameters(), strict=True)]
    assert min(moved) > 0
    for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
        assert (a - b).abs().max() < error


def test_abnormal_examples_were_among_those_compared(batch):
    training = module(TinyNet(), "noise der abnormal")
    assert training.training_step(batch, 1)["parts"]["der"] > 0


@pytest.mark.parametrize("attack", [object(), fgsm(L2(0.5))])
def test_what_has_no_reference_loop_is_refused(attack):
    with pytest.raises(ValueError, match="rows=\\[reference\\] has no loop"):
        reference.terms_of(attack, Objective(AT))


def test_images_of_the_reference_loop_are_crops_and_mirror_images():
    torch.manual_seed(0)
    pixels = torch.randint(1, 256, (4, 3, 8, 8), dtype=torch.uint8)
    images = ImageSet(pixels, torch.arange(4))
    options = {"pad": 1, "flip": True, "workers": 0}
    for x, y in chain(*(reference.batches(images, 2, **options) for _ in range(3))):
        assert x.shape == (2, 3, 8, 8)
        assert x.dtype == torch.float32
        for image, label in zip(x, y, strict=True):
            padded = nn.functional.pad(pixels[label], (1, 1, 1, 1)) / 255
            crops = [padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
            assert any(torch.equal(image, c) or torch.equal(image, c.flip(-1)) for c in crops)
