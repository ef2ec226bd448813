"""A folder of image files: what it gives, and what is refused in one line."""

import shutil
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from energy_at.data import image_folder
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
        image_folder.folder(root, **options)
    assert "\n" not in str(caught.value)
    assert sorted(root.parent.rglob("*")) == before


def test_a_folder_is_its_splits_with_the_classes_in_alphabetical_order(root, cache):
    found = image_folder.folder(root)
    assert found.names == NAMES
    for split, count in COUNTS.items():
        part = getattr(found, split)
        assert part.labels.tolist() == [c for c in range(3) for _ in range(count)]
        for row, c, i in zip(part.pixels, part.labels, list(range(count)) * 3, strict=True):
            source = np.asarray(Image.open(root / split / NAMES[c] / f"{i}.png"))
            assert np.array_equal(row.permute(1, 2, 0), source)
    assert [path.name[:5] for path in cache.iterdir() if not path.is_symlink()] == ["pets-"]


def test_without_test_images_those_of_val_are_the_test_set(root):
    val = image_folder.folder(root).val
    shutil.rmtree(root / "test")
    (root / "val").rename(root / "valid")
    found = image_folder.folder(root)
    assert found.val is None
    assert torch.equal(found.test.pixels, val.pixels)


def test_what_is_no_image_and_what_is_hidden_is_left_out(root):
    (root / "train" / "labels.csv").touch()
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "train" / "cat" / "Thumbs.db").touch()
    (root / "train" / "cat" / "boxes.txt").write_text("0.png 1 2 3 4")
    (root / "train" / "cat" / "._0.png").touch()
    (root / "train" / "cat" / "0.png").rename(root / "train" / "cat" / "0.PNG")
    assert len(image_folder.folder(root).train) == 18


def test_names_of_any_alphabet_are_classes_and_accents_are_compared_as_they_are_shown(root):
    for split, accent in {"train": "caf\u00e9", "val": "cafe\u0301", "test": "caf\u00e9"}.items():
        (root / split / "cat").rename(root / split / accent)
        (root / split / "dog").rename(root / split / "犬")
    assert image_folder.folder(root).names == ("bird", "caf\u00e9", "犬")


def test_links_to_folders_and_files_are_followed(root):
    (root / "train" / "cat").rename(root.parent / "elsewhere")
    (root / "train" / "cat").symlink_to(root.parent / "elsewhere")
    assert len(image_folder.folder(root).train) == 18


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


def renamed(root, name):
    """An image that is of another kind, or only called so."""
    path = root / "test" / "cat" / name
    kind = "PNG" if path.suffix not in (".gif", ".tiff") else path.suffix[1:].upper()
    Image.new("RGB", (8, 8)).save(path, format=kind)


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
    "a class of folders": (nested, "train/dog/images would be left out: the images of a class"),
    "a folder in a class": (
        lambda root: (root / "val" / "dog" / "more").mkdir(),
        "val/dog/more would be left out",
    ),
    **{
        f"an image without a suffix that is read: {name}": (partial(renamed, name=name), name)
        for name in ("0.gif", "0.tiff", "0.heic", "0", "0.png.bak")
    },
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
    image_folder.folder(root, names=list(NAMES))
    said = r"^root must be a folder with the classes a, b: it has bird, cat, dog, got"
    refused(said, image_folder.folder, root, names=["a", "b"])


@pytest.mark.parametrize("option", [{"channels": 2}, {"size": 0}])
def test_a_form_that_no_image_can_have_is_refused(root, option):
    refused(f"^{next(iter(option))} must be ", image_folder.folder, root, **option)
