"""Controls of a sampling: nearest training images, variety, copies, the independent classifier."""

import numpy as np
import pytest
import torch

from energy_at.data import ImageSet
from energy_at.models import small
from energy_at.sampling import TrainingImages, score
from energy_at.sampling.score import HELD_OUT, MEANS, SAMPLES, START
from tests.sampling.test_samples import some


def images_of(n, *, seed=0, classes=3):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 1, 3, 4), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, torch.arange(n) % classes)


def training(images):
    return TrainingImages(images.pixels, images.labels, 3)


def nearest(images, reference):
    return score.find_nearest(images, training(reference), "", progress=False)


def test_the_nearest_training_image_is_found(monkeypatch):
    monkeypatch.setattr(score, "CHUNK", 7)
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
    assert score.variety(images) == pytest.approx(sum(means) / 3, rel=1e-5)


def test_there_is_no_variety_without_a_pair():
    assert score.variety(images_of(3)) is None


def test_copies_of_training_images_show():
    train, real = images_of(200), images_of(100, seed=1)
    assert score.copy_rate(nearest(train.first(50), train), nearest(real, train)) == 1


def test_held_out_images_copy_no_more_than_they_do():
    train, real = images_of(200), images_of(300, seed=1)
    near = nearest(real, train)
    assert score.copy_rate(near, near) == pytest.approx(0.01, abs=0.004)


def test_the_accuracy_of_the_classifier_is_the_share_of_correct_images():
    net = small(channels=1, classes=3, width=4, mean=[0.5], std=[0.5]).eval()
    images = ImageSet(images_of(30).pixels.repeat(1, 1, 2, 2), torch.arange(30) % 3)
    with torch.no_grad():
        right = (net(images.pixels / 255).argmax(1) == images.labels).float().mean()
    assert score.classifier_accuracy(net, images, channels_last=False) == pytest.approx(
        float(right)
    )
    assert score.classifier_accuracy(None, images, channels_last=False) is None


def test_the_sets_of_a_report():
    samples = some(range(9))
    held_out, means = images_of(20), torch.randint(0, 256, (3, 3, 2, 4), dtype=torch.uint8)
    held_out = ImageSet(held_out.pixels.repeat(1, 3, 1, 1), held_out.labels)
    found = score.sets(samples, held_out, means, 0)
    assert list(found) == [SAMPLES, START, HELD_OUT, MEANS]
    assert found[SAMPLES].pixels.equal(samples.pixels)
    assert found[START].pixels.equal(samples.start)
    assert {len(images) for images in found.values()} == {9}
    assert found[MEANS].pixels.equal(means[torch.arange(9) % 3])
    real = {tuple(image.flatten().tolist()) for image in held_out.pixels}
    drawn = [tuple(image.flatten().tolist()) for image in found[HELD_OUT].pixels]
    assert set(drawn) <= real
    assert len(set(drawn)) == 9
    assert score.sets(samples, held_out, means, 1)[HELD_OUT].pixels.ne(found[HELD_OUT].pixels).any()
    assert len(score.sets(samples, held_out.take(torch.arange(4)), means, 0)[HELD_OUT]) == 4


def test_class_means_are_the_means():
    images = images_of(20)
    found = training(images).means()
    for label in range(3):
        expected = images.pixels[images.labels == label].double().mean(0) / 255
        torch.testing.assert_close(found[label].double(), expected, atol=1e-6, rtol=0)
