"""What a configuration asks to sample: its values, its protocol, its reference images."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from energy_at.core.rng import CountedNoise
from energy_at.models import small
from energy_at.reporting.describe import Protocol
from energy_at.sampling import Chains, ClassGaussian, OtherImages, Unguided, Uniform
from tests.helpers.material import composed, plan, subject


@pytest.mark.parametrize(
    "change",
    [
        {"n": 0},
        {"shown": 0},
        {"batch_size": 0},
        {"reference": "al"},
    ],
)
def test_what_is_no_sampling_is_refused(change):
    (name,) = change
    with pytest.raises(ValueError, match=f"^{name} must be "):
        replace(plan(), **change)


# Protocols


@pytest.fixture
def theirs(tmp_path):
    path = tmp_path / "theirs.npz"
    np.savez(path, images=np.zeros((2, 8, 8, 1), dtype=np.uint8))
    return f"start.images={path}"


def test_dat_is_fifty_thousand_samples_of_normalized_steps_from_stored_images(theirs):
    wish = composed("protocol=dat", theirs)
    assert (wish.n, wish.reference, wish.most_confident) == (50_000, "train", None)
    assert isinstance(wish.start, OtherImages)
    assert isinstance(wish.guidance, Unguided)
    x = torch.rand(5, 1, 8, 8) * 0.5 + 0.25
    y, zero = torch.arange(5), torch.zeros(5)
    chains = Chains.start_at(y, y, x, zero, CountedNoise.of(range(5)))
    net = small(channels=1, classes=10, width=4, mean=[0.3], std=[0.4]).eval()
    moved, _, before = wish.sampler.advance(net, chains, wish.guidance)
    length = torch.linalg.vector_norm((moved.x - x).flatten(1), dim=1)
    torch.testing.assert_close(length, torch.full((5,), 0.2))  # an L2 step of PGD
    after = -net(moved.x)[y, y]
    assert bool((after < before).all())  # up in f(x)[y]
    assert wish.sampler.steps == 33
    assert wish.protocol == Protocol("dat", [theirs])


def test_sada_is_gradient_ascent_of_logsumexp_with_steps_of_one_between_minus_one_and_one():
    wish = composed("protocol=sada")
    assert (wish.n, wish.reference, wish.most_confident) == (10_000, "train_test", [0.1, 0.9])
    assert wish.protocol == Protocol("sada", [])
    assert isinstance(wish.start, ClassGaussian)
    assert wish.start.scale == 1
    x = torch.rand(5, 1, 8, 8) * 0.5 + 0.25
    y, zero = torch.arange(5), torch.zeros(5)
    chains = Chains.start_at(y, y, x, zero, CountedNoise.of(range(5)))
    net = small(channels=1, classes=10, width=4, mean=[0.3], std=[0.4]).eval()
    moved, _, _ = wish.sampler.advance(net, chains, wish.guidance)
    wide = (2 * x - 1).requires_grad_(True)
    (gradient,) = torch.autograd.grad(net((wide + 1) / 2).logsumexp(1).sum(), wide)
    expected = ((wide + gradient).clamp(-1, 1) + 1) / 2
    torch.testing.assert_close(moved.x, expected.detach())
    assert wish.sampler.steps == 1000


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        ([], []),
        (["seed=3", "batch_size=7", "shown=2", "frames=3", "format=png"], []),
        (["n=5", "classes=[3]"], ["n=5", "classes=[3]"]),
        (["start=noise", "guidance=none"], ["start=noise", "guidance=none"]),
        (["start=class_pca", "start.scale=2"], ["start=class_pca", "start.scale=2"]),
        (["start=local_pca", "quality.reference=test"], ["quality.reference=test"]),
        (["sampler.steps=7", "sampler.noise=0.001"], ["sampler.steps=7"]),
        (["quality=none", "start.name=mine"], ["quality=none", "start.name=mine"]),
        (["quality.weights=file"], []),
    ],
)
def test_what_differs_from_the_protocol_is_named(overrides, changed):
    assert composed(*overrides).protocol == Protocol("ours", changed)


def test_what_is_typed_overrides_the_protocol():
    wish = composed("protocol=dat", "n=1000", "sampler.steps=22", "start=noise")
    assert (wish.n, wish.sampler.steps, type(wish.start)) == (1000, 22, Uniform)
    assert str(wish.protocol) == "dat, with start=noise, n=1000, sampler.steps=22"


def test_a_reference_of_both_splits_is_both():
    wish, data = plan("quality.reference=train_test"), subject().data
    found = wish.reference_images(data)
    assert found.pixels.equal(torch.cat([data.train.pixels, data.test.pixels]))
    assert found.labels.equal(torch.cat([data.train.labels, data.test.labels]))
    assert plan().reference_images(data).pixels.equal(data.train.pixels)
    few = plan("quality.reference=train_test", "quality.subset=60").reference_images(data)
    assert few.pixels.equal(found.spread(60).pixels)


def test_confident_samples_that_are_too_few_are_refused():
    plan("n=600", "quality.most_confident=[0.1,0.9]").require_confident(10)
    plan("n=1").require_confident(10)
    with pytest.raises(ValueError, match=r"^most_confident must be null, or shares of n=599 that"):
        plan("n=599", "quality.most_confident=[0.1,0.9]").require_confident(10)
