"""Images that samples are compared with: by class, by features, by energy."""

import pytest
import torch

from energy_at.models import small
from energy_at.sampling.training_images import embed
from tests.sampling.test_starts import images_of

# Training images


def test_the_images_of_a_class_are_found_whatever_was_asked_before():
    images = images_of(4, 6)
    for label in (0, 0, 1, 0):
        expected = images.pixels[images.labels == label].flatten(1) / 255
        assert torch.equal(images.of(label), expected)


# Features


def test_features_are_what_the_last_linear_layer_is_given(net):
    pixels = torch.randint(0, 256, (300, 3, 8, 8), dtype=torch.uint8)
    logits, features = embed(net, pixels)
    layers = net.eval().layers
    with torch.no_grad():
        expected = layers[:-1](pixels / 255)
        torch.testing.assert_close(features, expected)
        torch.testing.assert_close(logits, layers[-1](expected))
    assert not layers[-1]._forward_pre_hooks


def test_a_network_is_embedded_in_evaluation_mode_and_given_back_as_it_was(net):
    before = {name: value.clone() for name, value in net.train().state_dict().items()}
    embed(net, torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8))
    assert net.training
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())


def test_a_network_without_a_linear_layer_has_no_features():
    bare = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 8), torch.nn.Flatten())
    with pytest.raises(ValueError, match="has no linear layer"):
        embed(bare, torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


def test_energies_that_are_not_finite_are_refused():
    broken = small(channels=1, classes=3, width=4, mean=[0.5], std=[0.5])
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        embed(broken, torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
