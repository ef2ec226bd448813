"""Start images that lie in files."""

import numpy as np
import pytest
import torch
from PIL import Image

from energy_at.core.rng import CountedNoise
from energy_at.sampling import OtherImages
from tests.helpers.starts import drawn, images_of


def stored(path, pixels):
    np.savez(path, images=pixels.permute(0, 2, 3, 1).numpy())
    return OtherImages(str(path))


def test_sample_i_starts_from_image_i_whatever_its_class_and_noise(tmp_path):
    images = images_of(4, 4, shape=(1, 3, 3))
    theirs = torch.randint(0, 256, (40, 1, 3, 3), dtype=torch.uint8)
    start = stored(tmp_path / "theirs.npz", theirs)
    start.require(images, 40)
    number = torch.tensor([7, 39, 0, 40])  # a block counts beyond the last sample
    for label, seed in ((0, 0), (1, 5)):
        found = start.draw(label, number, CountedNoise.of(number.tolist(), seed), images, {})
        assert found.equal(theirs[[7, 39, 0, 0]].flatten(1) / 255)


def test_files_of_a_folder_are_made_to_fit(tmp_path):
    for i, level in enumerate((0, 51, 255)):
        picture = Image.new("RGB", (8, 6), (level, level, level))
        picture.save(tmp_path / f"{2 - i}.png")
    found = drawn(OtherImages(str(tmp_path)), 0, 3, images_of(4, shape=(1, 2, 2)), {})
    assert found.mul(255).round().tolist() == [[255] * 4, [51] * 4, [0] * 4]


def test_fewer_stored_images_than_samples_are_refused(tmp_path):
    start = stored(tmp_path / "few.npz", torch.zeros(5, 1, 2, 2, dtype=torch.uint8))
    images = images_of(4, shape=(1, 2, 2))
    start.require(images, 5)
    with pytest.raises(ValueError, match=r"must be a set of at least n=6 images.*: it holds 5"):
        start.require(images, 6)


@pytest.mark.parametrize("missing", [None, "nowhere"])
def test_stored_images_that_are_not_there_are_refused(missing):
    with pytest.raises(ValueError, match=r"^images must be a folder of images or an .npz file"):
        OtherImages(missing)


def test_other_stored_images_are_another_start(tmp_path):
    images = images_of(4, shape=(1, 2, 2))
    first = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    start = stored(tmp_path / "a.npz", first)
    before = start.digests
    assert drawn(start, 0, 3, images, {}).max() == 0
    (tmp_path / "a.npz").unlink()  # a file that is overwritten may be mapped
    start = stored(tmp_path / "a.npz", first + 255)
    assert drawn(start, 0, 3, images, {}).min() == 1
    assert start.digests != before
    (tmp_path / "sub").mkdir()
    stored(tmp_path / "sub" / "b.npz", first)
    assert OtherImages(str(tmp_path / "sub" / "b.npz")).digests == before
