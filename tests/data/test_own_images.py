"""What a user's own images say about the configuration."""

import torch

from energy_at.data import ImageSet, Splits
from energy_at.data.images import mean_and_std
from energy_at.data.own_images import facts

NAMES = ("bird", "cat", "dog")


def images(n):
    return ImageSet(torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8), torch.arange(n) % 3)


def test_facts_are_those_of_the_training_images():
    splits = Splits(images(18), images(6), images(6), NAMES)
    found = facts(splits)
    x = splits.train.pixels.double() / 255
    assert found["mean"] == [round(v, 4) for v in x.mean((0, 2, 3)).tolist()]
    assert found["std"] == [round(v, 4) for v in x.std((0, 2, 3), correction=0).tolist()]
    assert {key: found[key] for key in ("channels", "size", "classes", "names", "pad")} == {
        "channels": 3, "size": 8, "classes": 3, "names": list(NAMES), "pad": 1
    }  # fmt: skip
    assert found["val_size"] == 6  # the images of val/
    assert facts(Splits(splits.train, splits.test))["val_size"] == 3  # one of a class


def test_a_channel_that_never_changes_is_divided_by_one():
    pixels = torch.zeros((300, 1, 2, 2), dtype=torch.uint8) + 51
    images = ImageSet(pixels, torch.arange(300) % 2)
    assert mean_and_std(images) == ([0.2], [1.0])
