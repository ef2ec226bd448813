"""A user's own images: what a folder or a file of arrays gives, and what is refused in one line."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from energy_at.data import ImageSet, own_images
from energy_at.data.own_images import extra_images, facts
from tests.data.test_decoding import picture

NAMES = ("bird", "cat", "dog")
COUNTS = {"train": 6, "val": 2, "test": 3}  # images of a class


@pytest.fixture
def root(tmp_path):
    """A folder with three splits of three classes."""
    for s, (split, count) in enumerate(COUNTS.items()):
        for c, name in enumerate(NAMES):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture(8, 8, seed=100 * s + 10 * c + i).save(folder / f"{i}.png")
    return tmp_path / "pets"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "energy_at"


def refused(said, call, *args, **options):
    with pytest.raises(ValueError, match=said) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)


def refused_folder(said, root, **options):
    before = sorted(root.parent.rglob("*"))
    with pytest.raises((ValueError, FileNotFoundError), match=said) as caught:
        own_images.folder(root, **options)
    assert "\n" not in str(caught.value)
    assert sorted(root.parent.rglob("*")) == before


# Folders


def test_a_folder_is_its_splits_with_the_classes_in_alphabetical_order(root, cache):
    found = own_images.folder(root)
    assert found.names == NAMES
    for split, count in COUNTS.items():
        part = getattr(found, split)
        assert part.labels.tolist() == [c for c in range(3) for _ in range(count)]
        for row, c, i in zip(part.pixels, part.labels, list(range(count)) * 3, strict=True):
            source = np.asarray(Image.open(root / split / NAMES[c] / f"{i}.png"))
            assert np.array_equal(row.permute(1, 2, 0), source)
    assert [path.name[:5] for path in cache.iterdir()] == ["pets-"]


def test_without_test_images_those_of_val_are_the_test_set(root):
    val = own_images.folder(root).val
    shutil.rmtree(root / "test")
    (root / "val").rename(root / "valid")
    found = own_images.folder(root)
    assert found.val is None
    assert torch.equal(found.test.pixels, val.pixels)


def test_what_is_no_image_and_what_is_hidden_is_left_out(root):
    (root / "train" / "labels.csv").touch()
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "train" / "cat" / "Thumbs.db").touch()
    (root / "train" / "cat" / "._0.png").touch()
    (root / "train" / "cat" / "0.png").rename(root / "train" / "cat" / "0.PNG")
    assert len(own_images.folder(root).train) == 18


def test_names_of_any_alphabet_are_classes_and_accents_are_compared_as_they_are_shown(root):
    for split, accent in {"train": "caf\u00e9", "val": "cafe\u0301", "test": "caf\u00e9"}.items():
        (root / split / "cat").rename(root / split / accent)
        (root / split / "dog").rename(root / split / "犬")
    assert own_images.folder(root).names == ("bird", "caf\u00e9", "犬")


def test_links_to_folders_and_files_are_followed(root):
    (root / "train" / "cat").rename(root.parent / "elsewhere")
    (root / "train" / "cat").symlink_to(root.parent / "elsewhere")
    assert len(own_images.folder(root).train) == 18


def empty(root):
    shutil.rmtree(root / "train" / "dog")
    (root / "train" / "dog").mkdir()


def nested(root):
    (root / "train" / "dog").rename(root / "train" / "images")
    (root / "train" / "dog").mkdir()
    (root / "train" / "images").rename(root / "train" / "dog" / "images")


def one_class(root):
    for path in root.glob("*/*"):
        if path.name != "cat":
            shutil.rmtree(path)


def one_image(root):
    shutil.rmtree(root / "val")
    for path in list((root / "train" / "dog").iterdir())[1:]:
        path.unlink()


def dangling(root):
    (root / "train" / "emu").symlink_to(root / "nowhere")


SPOILT = {
    "no folder": (shutil.rmtree, "no folder of this name"),
    "no train": (lambda root: shutil.rmtree(root / "train"), "it has no train/"),
    "no test": (
        lambda root: [shutil.rmtree(root / split) for split in ("val", "test")],
        "it has no test/ and no val/",
    ),
    "no classes": (
        lambda root: [shutil.rmtree(root / "train" / name) for name in NAMES],
        "train has no folder: one for each class",
    ),
    "an empty class": (empty, "train/dog holds no image"),
    "a class of folders": (nested, "train/dog holds no image"),
    "one class": (one_class, "2 classes or more"),
    "a class of one image": (
        one_image,
        r"train/dog/\d.png is the only training image of its class",
    ),
    "a class too few": (
        lambda root: shutil.rmtree(root / "test" / "cat"),
        "the test images have no class cat",
    ),
    "a class too many": (
        lambda root: shutil.rmtree(root / "train" / "cat"),
        "the val images have a class cat that is not among the training images",
    ),
    "a loose image": (
        lambda root: (root / "train" / "cat" / "0.png").rename(root / "train" / "0.png"),
        "train/0.png is in the folder of no class",
    ),
    "a class that is a dangling link": (dangling, "train/emu is a link to a missing file"),
    "a name that would be evaluated": (
        lambda root: (root / "train" / "cat").rename(root / "train" / "${oc.env:HOME}"),
        "cannot be the name of a class: rename",
    ),
    "an empty file": (
        lambda root: (root / "test" / "cat" / "0.png").write_bytes(b""),
        r"cannot read .*test/cat/0.png \(0 bytes\): replace or remove",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line_before_anything_is_written(root, case):
    spoil, said = SPOILT[case]
    spoil(root)
    refused_folder(said, root)


def test_a_folder_of_other_classes_is_refused(root):
    own_images.folder(root, names=list(NAMES))
    said = r"^root must be a folder with the classes a, b: it has bird, cat, dog, got"
    refused(said, own_images.folder, root, names=["a", "b"])


@pytest.mark.parametrize("option", [{"channels": 2}, {"size": 0}])
def test_a_form_that_no_image_can_have_is_refused(root, option):
    refused(f"^{next(iter(option))} must be ", own_images.folder, root, **option)


# Facts


def test_facts_are_those_of_the_training_images(root):
    splits = own_images.folder(root)
    found = facts(splits)
    x = splits.train.pixels.double() / 255
    assert found["mean"] == [round(v, 4) for v in x.mean((0, 2, 3)).tolist()]
    assert found["std"] == [round(v, 4) for v in x.std((0, 2, 3), correction=0).tolist()]
    assert {key: found[key] for key in ("channels", "size", "classes", "names", "pad")} == {
        "channels": 3, "size": 8, "classes": 3, "names": list(NAMES), "pad": 1
    }  # fmt: skip
    assert found["val_size"] == 6  # the images of val/
    assert facts(own_images.Splits(splits.train, splits.test))["val_size"] == 3  # one of a class


def test_a_channel_that_never_changes_is_divided_by_one():
    pixels = torch.zeros((300, 1, 2, 2), dtype=torch.uint8) + 51
    images = ImageSet(pixels, torch.arange(300) % 2)
    assert own_images.mean_and_std(images) == ([0.2], [1.0])


# Arrays


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
    found = own_images.npz(tmp_path, file="some.npz")
    for split, (n, seed) in {"train": (30, 0), "val": (6, 1), "test": (9, 2)}.items():
        pixels, labels = arrays(n, seed=seed)
        part = getattr(found, split)
        assert np.array_equal(part.pixels, pixels.transpose(0, 3, 1, 2))
        assert part.pixels.is_contiguous()
        assert part.labels.tolist() == labels[:, 0].tolist()
    assert own_images.npz(Path("elsewhere"), file=file).names is None


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (8, 8, 1), (3, 8, 8), (8, 8, 3)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_channels_may_be_first_or_last_or_missing(tmp_path, shape, save):
    pair = arrays(12, shape)
    saved(tmp_path / "some.npz", save=save, train=pair, test=pair)
    found = own_images.npz(tmp_path, file="some.npz").train.pixels
    channels = 3 if 3 in shape else 1
    axes = (0, 3, 1, 2) if shape[-1] in (1, 3) else (0, 1, 2, 3)
    wanted = pair[0][:, None] if len(shape) == 2 else pair[0].transpose(axes)
    assert found.shape == (12, channels, 8, 8)
    assert np.array_equal(found, wanted)


def test_an_uncompressed_array_in_the_order_of_fortran_is_mapped_too(tmp_path):
    pixels, labels = arrays(12)
    pair = np.asfortranarray(pixels), labels
    saved(tmp_path / "some.npz", save=np.savez, train=pair, test=pair)
    found = own_images.npz(tmp_path, file="some.npz").train.pixels
    assert np.array_equal(found, pixels.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": (np.zeros((30, 8, 8, 3)), arrays()[1])}, "uint8.*train_images is float64"),
        ({"train": (arrays(30, (8, 9, 3))[0], arrays()[1])}, "square images .* is 30x8x9x3"),
        ({"train": (arrays(30, (8, 8, 5))[0], arrays()[1])}, "with 1 or 3 channels"),
        ({"train": (arrays(30)[0], arrays(29)[1])}, "has 30 images, train_labels 29 labels"),
        ({"train": (arrays(30)[0], np.eye(30, 3))}, "one class, .* is float64 of 30x3"),
        ({"train": (arrays(30)[0], arrays()[1] + 1)}, "val images have no class 3"),
        ({"train": arrays(30, classes=1), "val": arrays(6, classes=1),
          "test": arrays(6, classes=1)}, "2 or more"),
        ({split: (arrays(6)[0], 2 * arrays(6)[1]) for split in COUNTS}, "without gaps"),
        ({"test": arrays(9, (4, 4, 3))}, "test images are 3x4x4, training images 3x8x8"),
        ({"test": arrays(9, classes=2)}, "test images have no class 2"),
        ({"train": (np.array([{}] * 30), arrays()[1])}, "cannot be read"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_that_are_no_images_are_refused(tmp_path, change, said, save):
    medmnist(tmp_path / "some.npz", save=save, **change)
    refused(said, own_images.npz, tmp_path, file="some.npz")


def test_files_that_lack_arrays_are_refused(tmp_path):
    saved(tmp_path / "a.npz", train=arrays())
    refused("with test images .*: it holds train_im", own_images.npz, tmp_path, file="a.npz")
    saved(tmp_path / "b.npz", test=arrays(), val=arrays())
    refused("with training images", own_images.npz, tmp_path, file="b.npz")
    refused("no file of this name", own_images.npz, tmp_path, file="c.npz")
    (tmp_path / "d.npz").write_bytes(b"no archive")
    refused("cannot be read", own_images.npz, tmp_path, file="d.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_that_was_cut_off_is_refused(tmp_path, save):
    path = medmnist(tmp_path / "some.npz", save=save)
    path.write_bytes(path.read_bytes()[:-4000])
    refused("cannot be read", own_images.npz, tmp_path, file="some.npz")


@pytest.mark.parametrize(("key", "value"), [("size", 16), ("channels", 1), ("classes", 10)])
def test_a_file_of_another_form_than_the_configuration_says_is_refused(tmp_path, key, value):
    medmnist(tmp_path / "some.npz")
    refused(rf"^{key} must be [38], as in .*some.npz", own_images.npz, tmp_path, file="some.npz",
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
