"""Weights without mean and std: the normalization with which the network classifies."""

import pytest
import torch
from torch import nn

from energy_at.data import ImageSet
from energy_at.evaluation.normalization import (
    COMMON,
    NONE,
    OF_DATASET,
    _differs,
    choose_normalization,
    is_better,
)
from energy_at.models import Normalize, Normalized

MEAN, STD = [0.3], [0.25]


class Brightness(nn.Module):
    """The class of the nearest of four levels to the mean of what it is given."""

    def __init__(self, levels):
        super().__init__()
        self.register_buffer("levels", torch.tensor(levels))

    def forward(self, x):
        return -((x.mean((1, 2, 3))[:, None] - self.levels) ** 2)


LEVELS = [0.1, 0.3, 0.6, 0.9]


def images(n=400):
    labels = torch.arange(n) % 4
    pixels = (255 * torch.tensor(LEVELS)[labels]).round().to(torch.uint8)
    return ImageSet(pixels[:, None, None, None].expand(n, 1, 4, 4).contiguous(), labels)


def network(levels):
    return Normalized(Normalize(MEAN, STD), Brightness(levels))


NORMALIZED = [(level - MEAN[0]) / STD[0] for level in LEVELS]


@pytest.mark.parametrize(
    ("levels", "chosen"), [(NORMALIZED, OF_DATASET), (LEVELS, NONE), ([9.0] * 4, OF_DATASET)]
)
def test_the_normalization_is_the_one_with_which_the_network_classifies(levels, chosen):
    net = network(levels)
    found = choose_normalization(net, images(), 4)
    assert (found.chosen, found.images) == (chosen, 256)
    assert net.normalize.mean.item() == pytest.approx(0.0 if chosen == NONE else MEAN[0])
    if levels != [9.0] * 4:
        assert found.correct[chosen] == 256
    assert ("better than chance" in str(found)) == (levels == [9.0] * 4)
    assert found.decided == (levels != [9.0] * 4)


@pytest.mark.parametrize(("right", "better"), [(9, False), (10, True), (16, True)])
def test_better_is_what_exceeds_three_standard_deviations(right, better):
    """One that wins all n images on which they disagree is better if n > 3 sqrt(n): n > 9."""
    a, b = torch.zeros(20, dtype=torch.bool), torch.zeros(20, dtype=torch.bool)
    a[:right] = True
    assert is_better(a, b) == better
    assert not is_better(b, a)
    a[right:], b[right:] = True, True  # on these they agree
    assert is_better(a, b) == better


def test_readings_that_differ_little_need_no_decision():
    """Two roundings of the same constants are one reading, mean 0 and std 1 are another."""
    own = Normalize([0.49, 0.48, 0.45], [0.247, 0.244, 0.262])
    alike = [_differs(Normalize(*constants), own) for constants in COMMON.values()]
    assert alike == [True, False, False]
    assert _differs(Normalize([0.0] * 3, [1.0] * 3), own)


def test_a_network_that_ignores_its_images_decides_and_needs_nothing():
    net = Normalized(Normalize(MEAN, STD), Brightness(LEVELS))
    net.net.forward = lambda x: torch.ones(len(x), 4)
    assert choose_normalization(net, images(), 4).decided


def test_a_wish_is_not_measured():
    for wish, mean in {"dataset": MEAN[0], "none": 0.0}.items():
        net = network(LEVELS)
        assert choose_normalization(net, images(), 4, wish) is None
        assert net.normalize.mean.item() == pytest.approx(mean)
    with pytest.raises(ValueError, match=r"^normalize must be auto, dataset or none"):
        choose_normalization(network(LEVELS), images(), 4, "imagenet")
