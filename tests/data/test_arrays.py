"""A file of arrays: what it gives, and what is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch

from energy_at.data import ImageSet
from energy_at.data import arrays as npz_arrays
from energy_at.data.arrays import extra_images


def refused(said, call, *args, **options):
    with pytest.raises(ValueError, match=said) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)


def arrays(n=30, shape=(8, 8, 3), classes=3, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (n, *shape), dtype=np.uint8), np.arange(n)[:, None] % classes


def saved(path, form="{}_images {}_labels", *, save=np.savez_compressed, **splits):
    """A file with the arrays of these splits, named in this form."""
    content = {}
    for split, pair in splits.items():
        names = form.replace("{}", split).split()
        content |= dict(zip(names, pair, strict=True))
    save(path, **content)
    return path


def medmnist(path, **options):
    parts = {"train": arrays(30), "val": arrays(6, seed=1), "test": arrays(9, seed=2)}
    return saved(path, **(parts | options))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("form", ["{}_images {}_labels", "x_{} y_{}", "{}_X {}_Y"])
def test_a_file_of_arrays_is_its_splits(tmp_path, save, form):
    file = medmnist(tmp_path / "some.npz", save=save, form=form)
    found = npz_arrays.npz(tmp_path, file="some.npz")
    for split, (n, seed) in {"train": (30, 0), "val": (6, 1), "test": (9, 2)}.items():
        pixels, labels = arrays(n, seed=seed)
        part = getattr(found, split)
        assert np.array_equal(part.pixels, pixels.transpose(0, 3, 1, 2))
        assert part.pixels.is_contiguous()
        assert part.labels.tolist() == labels[:, 0].tolist()
    assert npz_arrays.npz(Path("elsewhere"), file=file).names is None


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (8, 8, 1), (3, 8, 8), (8, 8, 3)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_channels_may_be_first_or_last_or_missing(tmp_path, shape, save):
    pair = arrays(12, shape)
    saved(tmp_path / "some.npz", save=save, train=pair, test=pair)
    found = npz_arrays.npz(tmp_path, file="some.npz").train.pixels
    channels = 3 if 3 in shape else 1
    axes = (0, 3, 1, 2) if shape[-1] in (1, 3) else (0, 1, 2, 3)
    wanted = pair[0][:, None] if len(shape) == 2 else pair[0].transpose(axes)
    assert found.shape == (12, channels, 8, 8)
    assert np.array_equal(found, wanted)


def test_an_uncompressed_array_in_the_order_of_fortran_is_mapped_too(tmp_path):
    pixels, labels = arrays(12)
    pair = np.asfortranarray(pixels), labels
    saved(tmp_path / "some.npz", save=np.savez, train=pair, test=pair)
    found = npz_arrays.npz(tmp_path, file="some.npz").train.pixels
    assert np.array_equal(found, pixels.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": (np.zeros((30, 8, 8, 3)), arrays()[1])}, "uint8.*train_images is float64"),
        ({"train": (arrays(30, (8, 9, 3))[0], arrays()[1])}, "square images .* is 30x8x9x3"),
        ({"train": (arrays(30, (8, 8, 5))[0], arrays()[1])}, "with 1 or 3 channels"),
        ({"train": (arrays(30)[0], arrays(29)[1])}, "has 30 images, train_labels 29 labels"),
        ({"train": (arrays(30)[0], np.eye(30, 3))}, "one class, .* is float64 of 30x3"),
        ({"train": (arrays(30)[0], arrays()[1] - 1)}, "an integer from 0, .* is -1 somewhere"),
        ({"train": (arrays(30)[0], arrays()[1] + 1)}, "val images have no class 3"),
        ({"train": arrays(30, classes=1), "val": arrays(6, classes=1),
          "test": arrays(6, classes=1)}, "2 or more"),
        ({split: (arrays(6)[0], 2 * arrays(6)[1]) for split in ("train", "val", "test")},
         "without gaps"),
        ({"test": arrays(9, (4, 4, 3))}, "test images are 3x4x4, training images 3x8x8"),
        ({"test": arrays(9, classes=2)}, "test images have no class 2"),
        ({"train": (np.array([{}] * 30), arrays()[1])}, "cannot be read"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_that_are_no_images_are_refused(tmp_path, change, said, save):
    medmnist(tmp_path / "some.npz", save=save, **change)
    refused(said, npz_arrays.npz, tmp_path, file="some.npz")


def test_files_that_lack_arrays_are_refused(tmp_path):
    saved(tmp_path / "a.npz", train=arrays())
    refused("with test images .*: it holds train_im", npz_arrays.npz, tmp_path, file="a.npz")
    saved(tmp_path / "b.npz", test=arrays(), val=arrays())
    refused("with training images", npz_arrays.npz, tmp_path, file="b.npz")
    refused("no file of this name", npz_arrays.npz, tmp_path, file="c.npz")
    (tmp_path / "d.npz").write_bytes(b"no archive")
    refused("cannot be read", npz_arrays.npz, tmp_path, file="d.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_that_was_cut_off_is_refused(tmp_path, save):
    path = medmnist(tmp_path / "some.npz", save=save)
    path.write_bytes(path.read_bytes()[:-4000])
    refused("cannot be read", npz_arrays.npz, tmp_path, file="some.npz")


@pytest.mark.parametrize(("key", "value"), [("size", 16), ("channels", 1), ("classes", 10)])
def test_a_file_of_another_form_than_the_configuration_says_is_refused(tmp_path, key, value):
    medmnist(tmp_path / "some.npz")
    refused(rf"^{key} must be [38], as in .*some.npz", npz_arrays.npz, tmp_path, file="some.npz",
            **{key: value})  # fmt: skip


# Extra images


@pytest.mark.parametrize(
    "names", ["image label", "images labels", "x y", "train_images train_labels"]
)
def test_extra_images_are_read_under_the_names_that_are_used_for_them(tmp_path, names):
    pixels, labels = arrays()
    np.savez(tmp_path / "more.npz", **dict(zip(names.split(), (pixels, labels[:, 0]), strict=True)))
    like = ImageSet(torch.zeros((4, 3, 8, 8), dtype=torch.uint8), torch.arange(4))
    found = extra_images(tmp_path / "more.npz", like)
    assert np.array_equal(found.pixels, pixels.transpose(0, 3, 1, 2))


def test_extra_images_that_do_not_fit_are_refused(tmp_path):
    pixels, labels = arrays()
    np.savez(tmp_path / "more.npz", image=pixels, label=labels)
    like = ImageSet(torch.zeros((4, 3, 6, 6), dtype=torch.uint8), torch.arange(4))
    refused(
        "^extra must be .* those of training, 3x6x6: it has",
        extra_images,
        tmp_path / "more.npz",
        like,
    )
    like = ImageSet(torch.zeros((2, 3, 8, 8), dtype=torch.uint8), torch.arange(2))
    refused("labels up to 1, .*: it has 2", extra_images, tmp_path / "more.npz", like)
    np.savez(tmp_path / "none.npz", samples=pixels)
    refused("arrays image and label: it holds samples", extra_images, tmp_path / "none.npz", like)
    refused("^extra must be .*no file", extra_images, tmp_path / "missing.npz", like)
