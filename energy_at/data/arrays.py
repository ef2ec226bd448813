"""Readers of arrays in an ``.npz`` file."""

import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from energy_at.core.rules import ArgumentError, MissingFilesError
from energy_at.core.types import Labels, Pixels
from energy_at.data.images import ImageSet, IndexedImages, Splits
from energy_at.data.own_images import SPLITS, form_of, listed, require_same, splits_of

_PAIRS = (  # names of the arrays of a split, in lower case: MedMNIST's, Keras's, and others
    ("{}_images", "{}_labels"),
    ("x_{}", "y_{}"),
    ("{}_x", "{}_y"),
    ("images_{}", "labels_{}"),
)
EXTRA = (("image", "label"), ("images", "labels"), ("x", "y"))  # of a file without splits


def npz(
    root: Path,
    *,
    file: str | Path,
    channels: int | None = None,
    size: int | None = None,
    classes: int | None = None,
    download: bool = False,
) -> Splits:
    """Arrays of a NumPy file: ``train_images``, ``train_labels``, and those of ``test`` or ``val``.

    Images are bytes, with the channels first or last, or grey without; labels are integers from 0.
    So MedMNIST's files are read as they are. ``x_train``, ``y_train`` and such names are known too.
    Arrays that were saved uncompressed are mapped into memory, not read.

    Args:
        root: Folder in which a relative ``file`` is looked for.
        file: The ``.npz`` file.
        channels: 1 or 3, as the file must have them.
        size: As the images of the file must have it.
        classes: Their number, as the file must have it.
        download: Has no effect.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if its arrays are not images and labels, or the splits do not fit together.
    """
    path = root / Path(file).expanduser()
    arrays = Arrays(path)
    parts = {
        split: arrays.images(*pair)
        for split, names in SPLITS.items()
        if (pair := arrays.pair(names)) is not None
    }
    if "train" not in parts or len(parts) == 1:
        lacking = "training images (train_images, train_labels)"
        if "train" in parts:
            lacking = "test images (test_images, test_labels)"
        must = f"a file with {lacking}: it holds {arrays.listed}"
        raise ArgumentError("file", str(file), must)
    _require_fitting(path, parts)
    train = parts["train"]
    known = train.labels.unique().tolist()
    if known != list(range(len(known))) or len(known) < 2:
        must = f"a file with classes that are numbered from 0 without gaps, 2 or more: {known[:5]}"
        raise ArgumentError("file", str(file), must)
    has = {"channels": train.shape[0], "size": train.shape[1], "classes": len(known)}
    for key, wanted in {"channels": channels, "size": size, "classes": classes}.items():
        if wanted not in (None, has[key]):
            raise ArgumentError(key, wanted, f"{has[key]}, as in {path}, or null")
    return splits_of(parts, None)


def _require_fitting(path: Path, parts: Mapping[str, ImageSet]) -> None:
    """Raises ``ValueError`` unless all splits have images and classes as those of training."""
    train = parts["train"]
    known = train.labels.unique().tolist()
    for split, part in parts.items():
        if part.shape != train.shape:
            raise ValueError(
                f"{path}: {split} images are {form_of(part)}, training images {form_of(train)}"
            )
        require_same(path, split, part.labels.unique().tolist(), known)


def extra_images(file: Path, like: ImageSet) -> ImageSet:
    """More training images, from the arrays ``image`` and ``label`` of an ``.npz`` file.

    Also ``images`` and ``labels``, ``x`` and ``y``, or the training images of a file with splits.

    Args:
        file: The ``.npz`` file.
        like: The training images, which they must fit.

    Raises:
        ArgumentError: if they do not, or the file cannot be read.
    """
    arrays = Arrays(file, "extra")
    pair = arrays.pair(SPLITS["train"]) or arrays.first(EXTRA)
    if pair is None:
        must = f"a file with the arrays image and label: it holds {arrays.listed}"
        raise ArgumentError("extra", str(file), must)
    images = arrays.images(*pair)
    if images.shape != like.shape:
        must = f"a file of images as those of training, {form_of(like)}: it has {form_of(images)}"
        raise ArgumentError("extra", str(file), must)
    highest, found = int(like.labels.max()), int(images.labels.max())
    if found > highest:
        must = f"a file with labels up to {highest}, as those of training: it has {found}"
        raise ArgumentError("extra", str(file), must)
    return images


class Arrays:
    """The arrays of an ``.npz`` file.

    Args:
        path: Of the file.
        argument: With which it was named, for messages.

    Raises:
        FileNotFoundError: if it is missing.
        ArgumentError: if it is no archive.
    """

    def __init__(self, path: Path, argument: str = "file") -> None:
        self.path, self.argument = path, argument
        if not path.is_file():
            raise MissingFilesError(argument, str(path), "an .npz file (no file of this name)")
        try:
            with zipfile.ZipFile(path) as archive:
                found = [name for name in archive.namelist() if name.endswith(".npy")]
        except (zipfile.BadZipFile, OSError) as error:
            raise self._refused(f"an .npz file: it cannot be read ({error})") from error
        self.names = {name.lower(): name for name in (one.removesuffix(".npy") for one in found)}

    @property
    def listed(self) -> str:
        return listed(list(self.names.values()))

    def pair(self, names: Sequence[str]) -> tuple[str, str] | None:
        """The names of the images and the labels of a split, by any of its ``names``."""
        return self.first([(a.format(n), b.format(n)) for n in names for a, b in _PAIRS])

    def first(self, pairs: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
        """The first of these pairs that the file holds."""
        return next((pair for pair in pairs if set(pair) <= self.names.keys()), None)

    def images(self, pixels: str, labels: str) -> IndexedImages:
        """The images and labels in two arrays."""
        store, found = self.pixels(pixels), self._labels(labels)
        if len(store) != len(found):
            raise self._refused(
                f"a file with a label for each image: {self.names[pixels]} has {len(store):,} "
                f"images, {self.names[labels]} {len(found):,} labels"
            )
        return IndexedImages(store, torch.arange(len(store)), found)

    def pixels(self, name: str) -> Pixels:
        """The images in an array."""
        array = self._array(name)
        form = "x".join(map(str, array.shape))
        if array.dtype != np.uint8:
            raise self._refused(
                f"a file of images with values from 0 to 255 (uint8): {self.names[name]} is "
                f"{array.dtype}"
            )
        store = torch.from_numpy(array)
        if store.ndim == 3:
            store = store[:, None]
        elif store.ndim == 4 and store.shape[3] in (1, 3):
            store = store.permute(0, 3, 1, 2)
        if store.ndim != 4 or store.shape[1] not in (1, 3) or store.shape[2] != store.shape[3]:
            raise self._refused(
                f"a file of square images with 1 or 3 channels: {self.names[name]} is {form}"
            )
        if not len(store):
            raise self._refused(f"a file of images: {self.names[name]} is empty")
        return store

    def _labels(self, name: str) -> Labels:
        array = self._array(name)
        if array.ndim == 2 and array.shape[1] == 1:  # MedMNIST's
            array = array[:, 0]
        if array.ndim != 1 or array.dtype.kind not in "iu" or (len(array) and array.min() < 0):
            form = "x".join(map(str, array.shape))
            found = f"{array.dtype} of {form}"
            if array.ndim == 1 and array.dtype.kind in "iu":
                found = f"{array.min()} somewhere"
            raise self._refused(
                f"a file with one class, an integer from 0, for each image: {self.names[name]} is "
                f"{found}"
            )
        return torch.from_numpy(array.astype(np.int64))

    def _array(self, name: str) -> NDArray[Any]:
        member = f"{self.names[name]}.npy"
        try:
            with zipfile.ZipFile(self.path) as archive:
                if archive.getinfo(member).compress_type == zipfile.ZIP_STORED:
                    return self._mapped(archive, member)
                with archive.open(member) as file:
                    return np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            reason = " ".join(str(error).split())
            raise self._refused(f"a file of arrays: {member} cannot be read ({reason})") from error

    def _mapped(self, archive: zipfile.ZipFile, member: str) -> NDArray[Any]:
        """An uncompressed array, where it lies in the archive."""
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                version, np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read(file)
            within = file.tell()
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which could run code")
        start = archive.getinfo(member).header_offset
        with self.path.open("rb") as raw:  # the local header: 30 bytes, a name and an extra field
            raw.seek(start)
            header = raw.read(30)
        start += 30 + sum(struct.unpack("<HH", header[26:])) + within
        if 0 in shape:
            return np.zeros(shape, dtype)
        return np.memmap(self.path, dtype, "c", start, shape, "F" if fortran else "C")

    def _refused(self, must: str) -> ArgumentError:
        return ArgumentError(self.argument, str(self.path), must)
