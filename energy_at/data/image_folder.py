"""A reader of image files in a folder for each class."""

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from energy_at.core.rules import ArgumentError, MissingFilesError, integer, or_null, require
from energy_at.data.decoding import SUFFIXES, decoded_files, is_other_image, shown
from energy_at.data.images import IndexedImages, Splits
from energy_at.data.own_images import CHANNELS, SPLITS, listed, require_same, splits_of


def folder(
    root: Path,
    *,
    channels: int | None = None,
    size: int | None = None,
    names: Sequence[str] | None = None,
    cache: str | Path | None = None,
    download: bool = False,
) -> Splits:
    """Image files in ``train/CLASS/``, and ``test/CLASS/`` or ``val/CLASS/``.

    With all three, the images of ``val/`` are those to validate on. With two, the second one is the
    test set, and images to validate on are held out of the training set.

    Args:
        root: The folder.
        channels: 1 (grey) or 3 (RGB) to convert to; those of the files if all have the same.
        size: Pixels of height and width, to resize and crop to; those of the files if all have it.
        names: Of the classes, if they are known: a folder with others is refused.
        cache: Folder of the decoded images; ``energy_at`` in the user's cache folder by default.
        download: Has no effect.

    Raises:
        FileNotFoundError: if the folder, or a part of it, is missing.
        ValueError: if a file cannot be read, or the splits do not fit together.
    """
    require(CHANNELS, channels=channels)
    require(or_null(integer(1)), size=size)
    found = {split: _classes(path) for split, path in _split_folders(root).items()}
    _require_fitting(root, found, names)
    known = list(found["train"])
    files = [path for classes in found.values() for name in known for path in classes[name]]
    store = decoded_files(files, root, cache, channels=channels, size=size)
    parts, first = {}, 0
    for split, classes in found.items():
        counts = torch.tensor([len(classes[name]) for name in known])
        labels = torch.arange(len(known)).repeat_interleave(counts)
        parts[split] = IndexedImages(store, first + torch.arange(len(labels)), labels)
        first += len(labels)
    return splits_of(parts, tuple(known))


def _require_fitting(
    root: Path, found: Mapping[str, Mapping[str, Sequence[Path]]], names: Sequence[str] | None
) -> None:
    """Refuses splits of other classes, or too few of them, or too few images of one."""
    known = list(found["train"])
    for split, classes in found.items():
        require_same(root, split, classes, known)
    if names is not None and list(names) != known:
        must = f"a folder with the classes {listed(names)}: it has {listed(known)}"
        raise ArgumentError("root", str(root), must)
    if len(known) < 2:
        raise ArgumentError("root", str(root), f"a folder with 2 classes or more: it has {known}")
    few = next((c for c in known if len(found["train"][c]) < 2), None)
    if len(found) < 3 and few is not None:
        raise ValueError(
            f"{shown(found['train'][few][0])} is the only training image of its class, which needs "
            "2: one is held out to validate on"
        )


def _split_folders(root: Path) -> dict[str, Path]:
    def missing(why: str) -> MissingFilesError:
        must = f"a folder with train/CLASS/*.png and test/CLASS/*.png ({why})"
        return MissingFilesError("root", str(root), must)

    if not root.is_dir():
        raise missing("there is no folder of this name")
    found = {
        split: root / name
        for split, names in SPLITS.items()
        for name in names
        if (root / name).is_dir()
    }
    if "train" not in found:
        raise missing("it has no train/")
    if len(found) == 1:
        raise missing("it has no test/ and no val/")
    return found


def _classes(path: Path) -> dict[str, list[Path]]:
    """Image files of a split by class, both in alphabetical order."""
    found: dict[str, list[Path]] = {}
    for entry in sorted(_visible(path)):
        if entry.is_symlink() and not entry.exists():
            raise FileNotFoundError(
                f"{shown(entry)} is a link to a missing file: restore or remove it"
            )
        if not entry.is_dir():
            if entry.suffix.lower() in SUFFIXES:
                raise ValueError(f"{shown(entry)} is in the folder of no class: move it into one")
            continue
        # macOS composes accents otherwise than Linux
        name = unicodedata.normalize("NFC", entry.name)
        if name in found or "${" in name or name == "???" or shown(entry) != str(entry):
            raise ValueError(f"{shown(entry)} cannot be the name of a class: rename the folder")
        inside = sorted(_visible(entry))
        found[name] = [file for file in inside if file.suffix.lower() in SUFFIXES]
        left = next((one for one in inside if one.is_dir() or is_other_image(one)), None)
        if left is not None:
            raise ValueError(
                f"{shown(left)} would be left out: the images of a class are files "
                f"({', '.join(SUFFIXES)}) directly in its folder; convert, move or remove it"
            )
        if not found[name]:
            raise ValueError(
                f"{shown(entry)} holds no image ({', '.join(SUFFIXES)}): add some, or remove the "
                "folder"
            )
    if not found:
        raise FileNotFoundError(f"{shown(path)} has no folder: one for each class must be in it")
    return dict(sorted(found.items()))


def _visible(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if not entry.name.startswith(".")]
