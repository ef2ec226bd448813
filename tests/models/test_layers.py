"""Layers: normalization and convolutions."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.functional import normalize

from energy_at.models import Normalize
from energy_at.models.layers import conv3x3

RGB = {"channels": 3, "mean": (0.49, 0.48, 0.45), "std": (0.25, 0.24, 0.26)}
GREY = {"channels": 1, "mean": (0.13,), "std": (0.31,)}


@pytest.mark.parametrize(
    ("mean", "std"), [((0.5,), (0.2, 0.2)), ((0.5,), (0.0,)), ((0.5,), (-1.0,))]
)
def test_impossible_normalization_is_refused(mean, std):
    with pytest.raises(ValueError, match=r"std must be a list of (1 )?finite numbers > 0, one a"):
        Normalize(mean, std)


# Normalization


@pytest.mark.parametrize("images", [RGB, GREY], ids=["rgb", "grey"])
def test_normalize_is_that_of_torchvision(images):
    x = torch.rand(5, images["channels"], 6, 4)
    expected = normalize(x, images["mean"], images["std"])
    torch.testing.assert_close(Normalize(images["mean"], images["std"])(x), expected)


def same(x, stride):
    return F.pad(x, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(
    ("padding", "stride", "sides"),
    [
        ("same", 2, (0, 1, 0, 1)),
        ("same", 1, (1, 1, 1, 1)),
        ("symmetric", 2, (1, 1, 1, 1)),
        ("symmetric", 1, (1, 1, 1, 1)),
    ],
)
def test_padding_is_that_of_explicit_zeros(padding, stride, sides, size):
    layer = conv3x3(3, 4, stride, padding).double()
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    torch.testing.assert_close(layer(x), F.conv2d(F.pad(x, sides), layer.weight, stride=stride))
