"""What samples are drawn from: training images, energies, fitted starts, and their cache."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from energy_at.sampling import Chains, score
from energy_at.sampling.langevin import ENERGIES
from energy_at.sampling.prepare import cached, prepare
from energy_at.sampling.training_images import Embedding, embed
from tests.helpers.material import composed, other, plan, subject


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


class Means(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, pixels):
        self.seen.append(len(pixels))
        return Embedding(pixels.flatten(1).float(), pixels.float().mean((2, 3)))


def test_features_of_an_image_are_computed_once_for_all_its_copies(digits_subject, tmp_path):
    extractor, material = Means(), prepare(digits_subject, plan(), tmp_path)
    copies = torch.randint(0, 7, (150,))
    images = digits_subject.data.test.first(7).take(copies)
    found = score._features(extractor, score.MEANS, images, material)
    assert sum(extractor.seen) == 7
    assert found.features.equal(images.pixels.expand(-1, 3, -1, -1).float().mean((2, 3)))
    assert found.logits.equal(images.pixels.expand(-1, 3, -1, -1).flatten(1).float())


def test_features_of_the_reference_are_computed_once_for_all_networks(tmp_path):
    extractor = Means()

    def features(name, seed):
        shared = tmp_path / "shared"
        material = prepare(subject(seed=seed), plan(), tmp_path / f"{seed}", shared=shared)
        images = material.plan.reference_images(material.model.data)
        return score._features(extractor, name, images, material).features

    first = features(score.REFERENCE, 0)
    assert sum(extractor.seen) == len(first) == 280
    assert features(score.REFERENCE, 1).equal(first)
    assert sum(extractor.seen) == 280
    features(score.HELD_OUT, 1)  # drawn by seed: of its own run
    assert sum(extractor.seen) == 560


# Stored images


def stored_digits(tmp_path, pixels):
    np.savez(tmp_path / "theirs.npz", images=pixels.permute(0, 2, 3, 1).numpy())
    return ["start=ood", f"start.images={tmp_path / 'theirs.npz'}"]


def test_stored_images_are_found_by_features_of_the_network(digits_subject, cache, tmp_path):
    train = digits_subject.data.train
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(3))[:200]
    typed = stored_digits(tmp_path, train.pixels[order])
    wish = other(*typed, "start.by=features", "n=300")
    material = prepare(digits_subject, wish, cache)
    # a training image that is stored is nearest to itself
    assert order[material.fit["nearest"][order].long()].equal(order)
    found = at_start(material, wish)["x"].flatten(1)
    known = train.pixels[order].flatten(1) / 255
    assert (torch.cdist(found, known).min(1).values < 0.01).all()
    assert len(found.unique(dim=0)) > 100
    again = prepare(subject(seed=1), wish, cache)
    assert not again.fit["nearest"].equal(material.fit["nearest"])


def test_the_closest_are_the_training_images_with_the_nearest_stored_images(
    digits_subject, cache, tmp_path
):
    typed = stored_digits(tmp_path, digits_subject.data.test.pixels)
    wish = other(*typed, "start.by=features", "start.closest=0.25", "n=400")
    material = prepare(digits_subject, wish, cache)
    train, test = digits_subject.data.train, digits_subject.data.test
    rows = [embed(digits_subject.net, images.pixels).features for images in (train, test)]
    distances, nearest = torch.cdist(*rows, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    found = at_start(material, wish)
    for label in range(10):
        of_class = (train.labels == label).nonzero().flatten()
        count = math.ceil(0.25 * len(of_class))
        closest = of_class[distances[of_class].argsort()[:count]]
        expected = test.pixels[nearest[closest].unique()].flatten(1) / 255
        starts = found["x"][found["y"] == label].flatten(1).unique(dim=0)
        assert (torch.cdist(starts, expected).min(1).values < 0.01).all()
        assert len(starts) >= 0.6 * len(expected)  # of 40 draws of at most 8


def test_features_of_stored_images_are_computed_once(digits_subject, cache, tmp_path, monkeypatch):
    typed = stored_digits(tmp_path, digits_subject.data.test.pixels)
    seen = []

    def counted(net, pixels, **options):
        seen.append(len(pixels))
        return embed(net, pixels, **options)

    monkeypatch.setattr("energy_at.sampling.prepare.embed", counted)
    for share in (1, 0.5):
        wish = other(*typed, "start.by=features", f"start.closest={share}")
        prepare(digits_subject, wish, cache)
        assert seen == [280, 100]  # training images, stored images
