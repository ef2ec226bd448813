"""Data sets of the Hugging Face Hub, here as folders of the same form: what they give."""

import io
import logging
import re
import shutil

import numpy as np
import pytest
import torch

from energy_at.config.keys import compose_command
from energy_at.config.schema import check
from energy_at.core.extras import install
from energy_at.data import huggingface, image_folder
from tests.data.test_decoding import picture

datasets = pytest.importorskip("datasets")

NAMES = ["bird", "cat", "dog"]
COUNTS = {"train": 6, "test": 3}  # images of a class


def content(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return {"bytes": data.getvalue(), "path": None}


def write(root, change=lambda rows: rows, features=None, **splits):
    """Parquet files of a data set, in the order of the Hub: classes alternate."""
    features = features or datasets.Features(
        {"label": datasets.ClassLabel(names=NAMES), "picture": datasets.Image()}
    )
    for split, count in (splits or COUNTS).items():
        rows = {
            "label": [i % 3 for i in range(3 * count)],
            "picture": [content(picture(8, 8, seed=i + count)) for i in range(3 * count)],
        }
        (root / "data").mkdir(parents=True, exist_ok=True)
        part = datasets.Dataset.from_dict(change(rows), features=features)
        part.to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")
    return root


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")


def test_the_columns_of_images_and_classes_are_the_splits(tmp_path):
    write(tmp_path / "pets")
    found = huggingface(tmp_path, name="pets", download=False)
    assert (found.names, found.val) == (tuple(NAMES), None)
    for split, count in COUNTS.items():
        part = getattr(found, split)
        assert part.labels.tolist() == [i % 3 for i in range(3 * count)]
        for i, row in enumerate(part.pixels):
            assert np.array_equal(row.permute(1, 2, 0), np.asarray(picture(8, 8, seed=i + count)))
    cached = [path for path in (tmp_path / "cache" / "energy_at").iterdir() if path.is_file()]
    assert {path.resolve().name[:5] for path in cached} == {"pets-"}
    assert len({path.resolve() for path in cached}) == 1
    small = huggingface(tmp_path, name="pets", size=4, channels=1)
    assert small.train.shape == (1, 4, 4)


FRACTIONS, LISTS = (
    datasets.Features({"label": kind, "picture": datasets.Image()})
    for kind in (datasets.Value("float32"), datasets.List(datasets.Value("int64")))
)
REFUSED = {
    "an unknown data set": (
        lambda root: shutil.rmtree(root),
        "^name must be a data set of the Hugging Face Hub, or a folder of one: ",
    ),
    "no test images": (lambda root: write(root, train=3), "the splits train and test: it has"),
    "another image column": (None, "^image must be the name of a column of pets: picture, got"),
    "another label column": (None, "^label must be the name of a column of pets: label, picture,"),
    "a label column of images": (None, "^label must be a column of integers or words: it holds P"),
    "a label column of fractions": (
        lambda root: write(root, lambda rows: rows | {"label": [0.5] * len(rows["label"])},
                           FRACTIONS),
        "^label must be a column of integers or words: it holds float32, got 'label'",
    ),
    "a label column of lists": (
        lambda root: write(root, lambda rows: rows | {"label": [[0]] * len(rows["label"])},
                           LISTS),
        "^label must be a column of integers or words: it holds List, got 'label'",
    ),
    "other classes": (None, "^name must be a data set with the classes a, b: it has bird, cat, d"),
    "a class without training images": (
        lambda root: write(root, lambda rows: rows | {"label": [0, 1] * (len(rows["label"]) // 2)},
                           train=6, test=4),
        "training images of each class: none is of dog",
    ),
    "an unlabelled test set": (
        lambda root: write(root, lambda rows: rows | {"label": [-1] * 9}, test=3),
        "the test images have no class bird|have a class without name",
    ),
    "a damaged image": (
        lambda root: write(root, lambda rows: rows | {"picture": [{"bytes": b"x", "path": None},
                                                                  *rows["picture"][1:]]}, test=3),
        r"cannot read image 0 of test of pets \(not an image\)",
    ),
    "an empty image": (
        lambda root: write(root, lambda rows: rows | {"picture": [{"bytes": b"", "path": None},
                                                                  *rows["picture"][1:]]}, test=3),
        r"cannot read image 0 of test of pets \(0 bytes\)",
    ),
}  # fmt: skip
OPTIONS = {
    "another image column": {"image": "photo"},
    "another label column": {"label": "class"},
    "a label column of images": {"label": "picture"},
    "a label column of fractions": {"label": "label"},
    "a label column of lists": {"label": "label"},
    "other classes": {"names": ["a", "b"]},
}


@pytest.mark.parametrize(
    "case",
    [
        *list(REFUSED)[1:],
        pytest.param("an unknown data set", marks=pytest.mark.slow),  # tries the network for long
    ],
)
def test_what_is_no_data_set_of_images_is_refused_in_one_line(tmp_path, case):
    spoil, said = REFUSED[case]
    root = write(tmp_path / "pets")
    if case == "no test images":
        shutil.rmtree(root)
    if spoil:
        spoil(root)
    with pytest.raises((ValueError, FileNotFoundError), match=said) as caught:
        huggingface(tmp_path, name="pets", **OPTIONS.get(case, {}))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_damaged_file_is_refused_and_not_logged_as_well(tmp_path):
    write(tmp_path / "pets")
    (tmp_path / "pets/data/train-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    logger, printed = logging.getLogger("datasets"), []
    handler = logging.Handler(logging.ERROR)
    handler.emit = printed.append
    logger.addHandler(handler)
    with pytest.raises(FileNotFoundError, match=r"^name must be a data set"):
        huggingface(tmp_path, name="pets")
    assert printed == []
    logging.getLogger("datasets.other").error("of another")  # and later errors are
    logger.removeHandler(handler)
    assert [record.getMessage() for record in printed] == ["of another"]


def test_classes_that_are_numbers_or_words_are_sorted(tmp_path):
    for kind, values in {"int64": [7, 3, 5], "string": ["fly", "ant", "bee"]}.items():
        features = datasets.Features({"label": datasets.Value(kind), "picture": datasets.Image()})
        change = lambda rows, v=values: rows | {"label": [v[k] for k in rows["label"]]}  # noqa: E731
        write(tmp_path / kind, change, features)
        found = huggingface(tmp_path, name=kind, label="label")
        assert found.names == tuple(map(str, sorted(values)))
        assert found.train.labels.tolist() == [2, 0, 1] * 6


def test_a_folder_of_files_is_the_same_as_for_the_reader_of_folders(tmp_path):
    for split in ("train", "test"):
        for c, name in enumerate(NAMES):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for i in range(3):
                picture(8, 8, seed=10 * c + i).save(folder / f"{i}.png")
    one = huggingface(tmp_path, name="pets", label="label")
    other = image_folder.folder(tmp_path / "pets")
    assert one.names == other.names
    for split in ("train", "test"):
        a, b = getattr(one, split), getattr(other, split)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.pixels, b.pixels)


def test_without_its_package_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("energy_at.core.extras.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=re.escape(install("huggingface"))):
        huggingface(tmp_path, name="pets")


def test_what_is_in_the_cache_of_the_client_needs_no_network(tmp_path):
    write(tmp_path / "pets")
    first = huggingface(tmp_path, name="pets")
    (made,) = (path.parent for path in (tmp_path / "hub").rglob("dataset_info.json"))
    fetched = tmp_path / "hub" / "user___pets" / "default" / "0.0.0" / made.name
    shutil.copytree(made, fetched)
    for table in fetched.glob("*.arrow"):
        table.rename(table.with_name(table.name.replace("parquet-", "pets-")))
    again = huggingface(tmp_path, name="user/pets", download=False)
    assert torch.equal(first.train.pixels, again.train.pixels)
    assert again.names == tuple(NAMES)
    with pytest.raises(FileNotFoundError, match=r"^name must be a data set .* 'user/other' on"):
        huggingface(tmp_path, name="user/other", download=False)


def test_a_data_set_without_a_name_is_refused():
    with pytest.raises(ValueError, match=r"^dataset.name= must be a name"):
        check(compose_command("train", ["dataset=huggingface"]))
