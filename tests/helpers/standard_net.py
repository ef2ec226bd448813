"""A standard network, as far from robust as they come: the ResNet-18 of the AutoAttack library.

It was trained on CIFAR-10 without attacks, and takes pixels in [0, 1] as they are: 94 % of the
first 256 test images are right; normalized by mean and standard deviation they are 14 %.
"""

from importlib import import_module
from importlib.resources import as_file, files

import pytest
import torch
from torchvision import datasets

from energy_at.data.readers import cifar10
from tests.data.test_readers import official


def standard_net():
    """In evaluation mode."""
    net = import_module("pyautoattack.examples.resnet").ResNet18()
    with as_file(files("pyautoattack") / "examples" / "model_test.pt") as path:
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net.eval()


def cifar10_test(factory):
    """The official test images. Skips where there are none."""
    root = official(factory, whole=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.CIFAR10, "train_list", datasets.CIFAR10.test_list)
        return cifar10(root, download=False)[1]
