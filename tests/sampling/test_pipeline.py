"""What samples are drawn from, what survives a kill, and what keeps the numbers honest."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import load_file

from energy_at.data import ImageData, ImageSet
from energy_at.data.readers import digits
from energy_at.evaluation.trained_model import TrainedModel
from energy_at.models import small
from energy_at.sampling import ENERGIES, Chains, Stop, TrainingImages, controls
from energy_at.sampling.controls import HELD_OUT, MEANS, SAMPLES, START
from energy_at.sampling.plan import plan_of
from energy_at.sampling.prepare import cached, prepared
from energy_at.sampling.samples import Parts, Samples, arrays, as_bytes
from tests.helpers.running import CONF


def plan(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plan_of(compose("sample", ["n=40", "start.k=5", *overrides]))


def other(*overrides):
    """The same without what only local PCA has."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plan_of(compose("sample", ["n=40", *overrides]))


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


def begun(material, wish, done=()):
    """All samples at their start, in order."""
    return in_order(Chains.concat(list(material.portions(wish, set(done)))))


def in_order(chains):
    order = chains.number.argsort()
    return {name: value[order] for name, value in vars(chains).items()}


def alike(a, b):
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


# What samples are drawn from


def test_the_material_is_the_training_images_and_their_energies(digits_subject, cache):
    for name, energy in ENERGIES.items():
        material = prepared(digits_subject, plan(f"sampler.energy={name}"), cache)
        train = digits_subject.data.train
        assert material.images.pixels.equal(train.pixels)
        with torch.no_grad():
            expected = energy(digits_subject.net(train.pixels / 255), train.labels)
        torch.testing.assert_close(material.energies, expected)


def test_samples_are_numbered_and_take_the_classes_in_turn(digits_subject, cache):
    wish = plan("n=47")
    found = begun(prepared(digits_subject, wish, cache), wish)
    assert found["number"].tolist() == list(range(47))
    assert found["y"].equal(torch.arange(47) % 10)
    assert found["steps"].tolist() == [0] * 47
    assert found["x"].shape == (47, 1, 8, 8)


def test_fewer_samples_than_classes_are_of_the_first_classes(digits_subject, cache):
    wish = plan("n=3")
    assert begun(prepared(digits_subject, wish, cache), wish)["y"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("start", ["noise", "class_gaussian", "class_pca", "local_pca"])
def test_the_first_of_more_samples_are_the_same(digits_subject, cache, start):
    few, many = (other(f"start={start}", f"n={n}") for n in (23, 400))
    material = prepared(digits_subject, many, cache)
    expected = {name: value[:23] for name, value in begun(material, many).items()}
    assert alike(begun(material, few), expected)


def test_what_is_done_is_left_out_and_changes_nothing(digits_subject, cache):
    wish = plan()
    material = prepared(digits_subject, wish, cache)
    whole, done = begun(material, wish), set(range(3, 33))
    kept = torch.tensor([i not in done for i in range(40)])
    assert alike(begun(material, wish, done), {k: v[kept] for k, v in whole.items()})


def test_another_seed_draws_other_samples_and_targets(digits_subject, cache):
    first, second = (plan(f"seed={seed}") for seed in (0, 1))
    material = prepared(digits_subject, first, cache)
    a, b = begun(material, first), begun(material, second)
    assert not set(a["keys"].tolist()) & set(b["keys"].tolist())
    assert ((a["x"] - b["x"]).abs().flatten(1).max(1).values > 0).all()
    assert not a["target"].equal(b["target"])


def test_targets_are_energies_of_the_class(digits_subject, cache):
    wish = plan()
    material = prepared(digits_subject, wish, cache)
    found, labels = begun(material, wish), material.images.labels
    for y, target in zip(found["y"], found["target"], strict=True):
        assert target in material.energies[labels == y]


# The cache


def entries(cache):
    return {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}


def test_what_was_fitted_is_read_the_next_time(digits_subject, cache):
    wish = plan()
    before = begun(prepared(digits_subject, wish, cache), wish)
    kept = entries(cache)
    assert {name.split("-")[0] for name in kept} == {"embedding", "start"}
    assert alike(begun(prepared(digits_subject, wish, cache), wish), before)
    assert entries(cache) == kept


@pytest.mark.parametrize("start", ["class_gaussian", "class_pca", "local_pca"])
def test_the_file_holds_what_was_fitted(digits_subject, cache, start):
    wish = other(f"start={start}")
    fit = prepared(digits_subject, wish, cache).fit
    (path,) = cache.glob("start-*.safetensors")
    assert alike(load_file(path), dict(fit))


@pytest.mark.parametrize("by", ["features", "pixels"])
def test_the_key_of_a_start_is_everything_that_it_depends_on(digits_subject, cache, by):
    def starts(of, *overrides):
        prepared(of, plan(f"start.by={by}", *overrides), cache)
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
    found = [prepared(of, plan(), cache).energies for of in (digits_subject, subject(seed=1))]
    assert not found[0].equal(found[1])


@pytest.mark.parametrize("damage", [b"", b"not a file of tensors", None])
def test_a_damaged_file_is_found_again(digits_subject, cache, damage):
    wish = plan()
    before = begun(prepared(digits_subject, wish, cache), wish)
    for path in cache.iterdir():
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if damage is None else damage)
    assert alike(begun(prepared(digits_subject, wish, cache), wish), before)
    assert all(load_file(path) for path in cache.iterdir())


def test_nothing_half_written_is_left(cache):
    def broken():
        raise RuntimeError("the power is out")

    with pytest.raises(RuntimeError):
        cached(cache / "x.safetensors", broken)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["start.k=200"], r"start.k=200 is more than the \d+ other images of class \d"),
        (["start.k=200", "start.by=pixels"], "start.k=200 is more"),
    ],
)
def test_what_cannot_be_fitted_leaves_nothing(digits_subject, cache, overrides, said):
    with pytest.raises(ValueError, match=said):
        prepared(digits_subject, plan(*overrides), cache)
    assert not cache.exists()


@pytest.mark.parametrize("start", ["noise", "class_gaussian", "class_pca", "local_pca"])
@pytest.mark.parametrize("guidance", ["none", "class_energy"])
def test_a_class_without_images_is_refused_before_anything_is_done(cache, start, guidance):
    with pytest.raises(ValueError, match="class 10 has no training images"):
        prepared(subject(classes=11), other(f"start={start}", f"guidance={guidance}"), cache)
    assert not cache.exists()


# Samples on disk


def some(numbers):
    """Samples that can be told apart."""
    number = torch.tensor(numbers)
    pixels = (number % 256).to(torch.uint8)[:, None, None, None].expand(-1, 3, 2, 4).contiguous()
    stop = torch.full_like(number, int(Stop.REACHED))
    return Samples(number, pixels, 255 - pixels, number % 3, number * 2, stop, number / 7)


def test_samples_are_put_in_order():
    whole = Samples.joined([some([4, 1]), some([0, 3]), some([2])])
    assert alike(vars(whole), vars(some([0, 1, 2, 3, 4])))


def test_bytes_are_the_nearest_and_survive_the_way_back():
    between = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 1.0]).reshape(1, 1, 2, 2)
    assert as_bytes(between).flatten().tolist() == [0, 0, 1, 255]
    whole = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert as_bytes(whole / 255).equal(whole)


def test_arrays_are_as_most_tools_read_them():
    found = arrays(some([5, 6]))
    assert found["pixels"].shape == (2, 2, 4, 3)
    assert found["pixels"].dtype == np.uint8
    assert found["pixels"][1].tolist() == np.full((2, 4, 3), 6).tolist()


def test_parts_are_on_disk_when_it_is_time(tmp_path, monkeypatch):
    monkeypatch.setattr(Parts, "EVERY", 0.0)
    parts = Parts(tmp_path / "parts", "key")
    parts.add(some([3, 1]))
    monkeypatch.setattr(Parts, "EVERY", 1e9)
    parts.add(some([2]))
    assert Parts(tmp_path / "parts", "key").done == {1, 3}
    parts.write()
    again = Parts(tmp_path / "parts", "key")
    assert again.done == {1, 2, 3}
    assert alike(vars(Samples.joined(again.finished)), vars(some([1, 2, 3])))
    again.add(some([0]))
    again.write()
    third = Parts(tmp_path / "parts", "key")
    assert third.done == {0, 1, 2, 3}
    third.remove()
    assert not (tmp_path / "parts").exists()


def test_no_folder_is_made_before_there_is_something_to_keep(tmp_path):
    Parts(tmp_path / "parts", "key").write()
    assert not (tmp_path / "parts").exists()


def test_parts_of_other_samples_are_refused_and_stay(tmp_path):
    parts = Parts(tmp_path / "parts", "key")
    parts.add(some([0]))
    parts.write()
    with pytest.raises(ValueError, match="holds other samples: choose another out=FOLDER"):
        Parts(tmp_path / "parts", "another")
    assert Parts(tmp_path / "parts", "key").done == {0}


@pytest.mark.parametrize("damage", [b"", b"PK no archive"])
def test_a_damaged_part_is_drawn_again(tmp_path, damage):
    parts = Parts(tmp_path / "parts", "key")
    for number in (0, 1):
        parts.add(some([number]))
        parts.write()
    (tmp_path / "parts" / "000000.npz").write_bytes(damage)
    again = Parts(tmp_path / "parts", "key")
    assert again.done == {1}
    again.add(some([0]))
    again.write()
    assert Parts(tmp_path / "parts", "key").done == {0, 1}


# Controls


def images_of(n, *, seed=0, classes=3):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 1, 3, 4), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, torch.arange(n) % classes)


def training(images):
    return TrainingImages(images.pixels, images.labels, 3)


def nearest(images, reference):
    return controls.nearest(images, training(reference), "", progress=False)


def test_the_nearest_training_image_is_found(monkeypatch):
    monkeypatch.setattr(controls, "CHUNK", 7)
    ours, theirs = images_of(30), images_of(40, seed=1)
    found = nearest(ours, theirs)
    for i, image in enumerate(ours.pixels.double() / 255):
        distances = [float((image - other).norm()) for other in theirs.pixels.double() / 255]
        assert found.places[i] == int(np.argmin(distances))
        assert found.distances[i] == pytest.approx(min(distances), rel=1e-5)


def test_an_image_of_the_training_set_is_at_no_distance_from_itself():
    images = images_of(60)
    found = nearest(images, images)
    assert found.places.equal(torch.arange(60))
    assert found.distances.equal(torch.zeros(60))


def test_variety_is_the_mean_distance_of_two_images_of_a_class():
    images = images_of(20)
    means = []
    for label in range(3):
        rows = (images.pixels[images.labels == label].double() / 255).flatten(1)
        pairs = [
            float((a - b).norm()) for i, a in enumerate(rows) for j, b in enumerate(rows) if i < j
        ]
        means.append(sum(pairs) / len(pairs))
    assert controls.variety(images) == pytest.approx(sum(means) / 3, rel=1e-5)


def test_there_is_no_variety_without_a_pair():
    assert controls.variety(images_of(3)) is None


def test_copies_of_training_images_show():
    train, real = images_of(200), images_of(100, seed=1)
    assert controls.copied(nearest(train.first(50), train), nearest(real, train)) == 1


def test_held_out_images_copy_no_more_than_they_do():
    train, real = images_of(200), images_of(300, seed=1)
    near = nearest(real, train)
    assert controls.copied(near, near) == pytest.approx(0.01, abs=0.004)


def test_the_judge_counts_what_it_takes_for_its_class():
    net = small(channels=1, classes=3, width=4, mean=[0.5], std=[0.5]).eval()
    images = ImageSet(images_of(30).pixels.repeat(1, 1, 2, 2), torch.arange(30) % 3)
    with torch.no_grad():
        right = (net(images.pixels / 255).argmax(1) == images.labels).float().mean()
    assert controls.judged(net, images, channels_last=False) == pytest.approx(float(right))
    assert controls.judged(None, images, channels_last=False) is None


def test_the_sets_of_a_report():
    samples = some(range(9))
    held_out, means = images_of(20), torch.randint(0, 256, (3, 3, 2, 4), dtype=torch.uint8)
    held_out = ImageSet(held_out.pixels.repeat(1, 3, 1, 1), held_out.labels)
    found = controls.sets(samples, held_out, means, 0)
    assert list(found) == [SAMPLES, START, HELD_OUT, MEANS]
    assert found[SAMPLES].pixels.equal(samples.pixels)
    assert found[START].pixels.equal(samples.start)
    assert {len(images) for images in found.values()} == {9}
    assert found[MEANS].pixels.equal(means[torch.arange(9) % 3])
    real = {tuple(image.flatten().tolist()) for image in held_out.pixels}
    drawn = [tuple(image.flatten().tolist()) for image in found[HELD_OUT].pixels]
    assert set(drawn) <= real
    assert len(set(drawn)) == 9
    assert (
        controls.sets(samples, held_out, means, 1)[HELD_OUT].pixels.ne(found[HELD_OUT].pixels).any()
    )
    assert len(controls.sets(samples, held_out.take(torch.arange(4)), means, 0)[HELD_OUT]) == 4


def test_class_means_are_the_means():
    images = images_of(20)
    found = training(images).means()
    for label in range(3):
        expected = images.pixels[images.labels == label].double().mean(0) / 255
        torch.testing.assert_close(found[label].double(), expected, atol=1e-6, rtol=0)
