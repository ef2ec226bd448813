"""What samples are drawn from: training images, energies, fitted starts, and their cache."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import nn

from energy_at.core.rng import CountedNoise
from energy_at.data import ImageData
from energy_at.data.readers import digits
from energy_at.evaluation import TrainedModel
from energy_at.models import small
from energy_at.reporting.describe import Protocol
from energy_at.sampling import Chains, ClassGaussian, OtherImages, Unguided, Uniform, score
from energy_at.sampling.langevin import ENERGIES
from energy_at.sampling.prepare import cached, plan_of, prepare
from energy_at.sampling.training_images import Embedding
from tests.helpers.running import CONF


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plan_of(compose("sample", list(overrides)))


def plan(*overrides):
    return composed("n=40", "start.k=5", *overrides)


def other(*overrides):
    """The same without what only local PCA has."""
    return composed("n=40", *overrides)


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


def subject(*, seed=0, images=300, classes=10, act="relu"):
    train, test = digits(Path())
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = small(channels=1, classes=classes, width=4, mean=[0.3], std=[0.4]).eval()
    data = ImageData(
        lambda _: (train.first(images), test.first(100)), "", batch_size=4, val_size=20
    )
    config = OmegaConf.create(
        {
            "dataset": {"name": "digits", "classes": classes, "channels": 1},
            "model": {"act": act},
            "training": {"channels_last": False},
        }
    )
    return TrainedModel(net, data, config, "here", None, Path("here"), torch.device("cpu"))


@pytest.fixture(scope="module")
def digits_subject():
    return subject()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def at_start(material, wish, done=()):
    """All samples at their start, in order."""
    return in_order(Chains.concat(list(replace(material, plan=wish).portions(set(done)))))


def in_order(chains):
    order = chains.number.argsort()
    return {name: value[order] for name, value in vars(chains).items()}


def alike(a, b):
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


# What samples are drawn from


def test_the_material_is_the_training_images_and_their_energies(digits_subject, cache):
    for name, energy in ENERGIES.items():
        material = prepare(digits_subject, plan(f"sampler.energy={name}"), cache)
        train = digits_subject.data.train
        assert material.images.pixels.equal(train.pixels)
        with torch.no_grad():
            expected = energy(digits_subject.net(train.pixels / 255), train.labels)
        torch.testing.assert_close(material.energies, expected)


@pytest.mark.parametrize("classes", [None, (3, 7)])
def test_energies_that_nothing_needs_are_of_some_images(
    digits_subject, cache, monkeypatch, classes
):
    monkeypatch.setattr("energy_at.sampling.prepare.SHOWN_ENERGIES", 20)
    whole = prepare(digits_subject, plan(), cache).energies
    assert whole.isfinite().all()
    for needed in (["start=noise"], ["guidance=none"]):  # by the guidance, and by local PCA
        assert prepare(digits_subject, composed(*needed), cache, classes).energies.isfinite().all()
    free = composed("start=class_pca", "guidance=none")
    material = prepare(digits_subject, free, cache, classes)
    known = material.energies.isfinite()
    torch.testing.assert_close(material.energies[known], whole[known])
    assert 10 < known.sum() <= 20
    assert set(material.images.labels[known].tolist()) == set(classes or range(10))
    assert len(material.training_energies) == known.sum()


def test_samples_are_numbered_and_take_the_classes_in_turn(digits_subject, cache):
    wish = plan("n=47")
    found = at_start(prepare(digits_subject, wish, cache), wish)
    assert found["number"].tolist() == list(range(47))
    assert found["y"].equal(torch.arange(47) % 10)
    assert found["steps"].tolist() == [0] * 47
    assert found["x"].shape == (47, 1, 8, 8)


def test_fewer_samples_than_classes_are_of_the_first_classes(digits_subject, cache):
    wish = plan("n=3")
    assert at_start(prepare(digits_subject, wish, cache), wish)["y"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("start", ["noise", "class_gaussian", "class_pca", "local_pca"])
def test_the_first_of_more_samples_are_the_same(digits_subject, cache, start):
    few, many = (other(f"start={start}", f"n={n}") for n in (23, 400))
    material = prepare(digits_subject, many, cache)
    expected = {name: value[:23] for name, value in at_start(material, many).items()}
    assert alike(at_start(material, few), expected)


def test_what_is_done_is_left_out_and_changes_nothing(digits_subject, cache):
    wish = plan()
    material = prepare(digits_subject, wish, cache)
    whole, done = at_start(material, wish), set(range(3, 33))
    kept = torch.tensor([i not in done for i in range(40)])
    assert alike(at_start(material, wish, done), {k: v[kept] for k, v in whole.items()})


def test_another_seed_draws_other_samples_and_targets(digits_subject, cache):
    first, second = (plan(f"seed={seed}") for seed in (0, 1))
    material = prepare(digits_subject, first, cache)
    a, b = at_start(material, first), at_start(material, second)
    assert not set(a["keys"].tolist()) & set(b["keys"].tolist())
    assert ((a["x"] - b["x"]).abs().flatten(1).max(1).values > 0).all()
    assert not a["target"].equal(b["target"])


def test_targets_are_energies_of_the_class(digits_subject, cache):
    wish = plan()
    material = prepare(digits_subject, wish, cache)
    found, labels = at_start(material, wish), material.images.labels
    for y, target in zip(found["y"], found["target"], strict=True):
        assert target in material.energies[labels == y]


# The cache


def entries(cache):
    return {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}


def test_what_was_fitted_is_read_the_next_time(digits_subject, cache):
    wish = plan()
    before = at_start(prepare(digits_subject, wish, cache), wish)
    kept = entries(cache)
    assert {name.split("-")[0] for name in kept} == {"embedding", "start"}
    assert alike(at_start(prepare(digits_subject, wish, cache), wish), before)
    assert entries(cache) == kept


@pytest.mark.parametrize("start", ["class_gaussian", "class_pca", "local_pca"])
def test_the_file_holds_what_was_fitted(digits_subject, cache, start):
    wish = other(f"start={start}")
    fit = prepare(digits_subject, wish, cache).fit
    (path,) = cache.glob("start-*.safetensors")
    assert alike(load_file(path), dict(fit))


@pytest.mark.parametrize("by", ["features", "pixels", "low_frequencies"])
def test_the_key_of_a_start_is_everything_that_it_depends_on(digits_subject, cache, by):
    def starts(of, *overrides):
        prepare(of, plan(f"start.by={by}", *overrides), cache)
        return {path.name for path in cache.glob("start-*")}

    known = starts(digits_subject)
    for same in (["seed=3"], ["n=11"], ["sampler.steps=3", "guidance=none"], ["quality=none"]):
        assert starts(digits_subject, *same) == known
    for changed in (["start.k=4"], ["start.variance=0.5"]):
        before, known = known, starts(digits_subject, *changed)
        assert len(known) == len(before) + 1
    before, known = known, starts(subject(images=290))
    assert len(known) == len(before) + 1
    for of in (subject(seed=1), subject(act="silu")):
        before, known = known, starts(of)
        assert len(known) == len(before) + (by == "features")


def test_another_network_has_other_energies(digits_subject, cache):
    found = [prepare(of, plan(), cache).energies for of in (digits_subject, subject(seed=1))]
    assert not found[0].equal(found[1])


@pytest.mark.parametrize("damage", [b"", b"not a file of tensors", None])
def test_a_damaged_file_is_found_again(digits_subject, cache, damage):
    wish = plan()
    before = at_start(prepare(digits_subject, wish, cache), wish)
    for path in cache.iterdir():
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if damage is None else damage)
    assert alike(at_start(prepare(digits_subject, wish, cache), wish), before)
    assert all(load_file(path) for path in cache.iterdir())


def test_nothing_half_written_is_left(cache):
    def broken():
        raise RuntimeError("the power is out")

    with pytest.raises(RuntimeError):
        cached(cache, "x", "key", broken)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["start.k=200"],
            r"^k must be at most \d+, the number of other images of class \d, got 200",
        ),
        (["start.k=200", "start.by=pixels"], "^k must be at most"),
    ],
)
def test_what_cannot_be_fitted_leaves_nothing(digits_subject, cache, overrides, said):
    with pytest.raises(ValueError, match=said):
        prepare(digits_subject, plan(*overrides), cache)
    assert not cache.exists()


@pytest.mark.parametrize("start", ["noise", "class_gaussian", "class_pca", "local_pca"])
@pytest.mark.parametrize("guidance", ["none", "class_energy"])
def test_a_class_without_images_is_refused_before_anything_is_done(cache, start, guidance):
    with pytest.raises(ValueError, match="class 10 has no training images"):
        prepare(subject(classes=11), other(f"start={start}", f"guidance={guidance}"), cache)
    assert not cache.exists()


def test_features_of_the_reference_are_computed_once_for_all_networks(tmp_path):
    seen = []

    class Means(nn.Module):
        def forward(self, pixels):
            seen.append(len(pixels))
            return Embedding(pixels.flatten(1).float(), pixels.float().mean((2, 3)))

    def features(name, seed):
        shared = tmp_path / "shared"
        material = prepare(subject(seed=seed), plan(), tmp_path / f"{seed}", shared=shared)
        images = material.plan.reference_images(material.model.data)
        return score._features(Means(), name, images, material).features

    first = features(score.REFERENCE, 0)
    assert sum(seen) == len(first) == 280
    assert features(score.REFERENCE, 1).equal(first)
    assert sum(seen) == 280
    features(score.HELD_OUT, 1)  # drawn by seed: of its own run
    assert sum(seen) == 560
