"""A reader of data sets from the Hugging Face Hub."""

import logging
from collections.abc import Iterator, Sequence
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, Literal, overload

import torch

from energy_at.core.extras import require_package
from energy_at.core.progress import one_line_retries
from energy_at.core.rules import ArgumentError, MissingFilesError, integer, or_null, require
from energy_at.core.types import Labels
from energy_at.data.decoding import decoded
from energy_at.data.images import IndexedImages, Splits
from energy_at.data.own_images import CHANNELS, SPLITS, listed, require_same, splits_of

CLASSES = ("int", "uint", "bool", "string", "large_string")  # types of a column of classes


def huggingface(
    root: Path,
    *,
    name: str,
    config: str | None = None,
    revision: str | None = None,
    image: str | None = None,
    label: str | None = None,
    channels: int | None = None,
    size: int | None = None,
    names: Sequence[str] | None = None,
    cache: str | Path | None = None,
    download: bool = True,
) -> Splits:
    """Images and classes of a data set of the Hugging Face Hub, or of a folder of the same form.

    Its splits are those of its name: ``train``, and ``test`` or ``validation``. What ``datasets``
    has in its own cache is not downloaded again.

    Args:
        root: Folder in which ``name`` is looked for before the Hub.
        name: ``USER/NAME``, or the path of a folder.
        config: Name of the configuration, where there are several.
        revision: Commit, tag or branch.
        image: Column of the images; the only one with images by default.
        label: Column of the classes; the only one with classes by default.
        channels: 1 (grey) or 3 (RGB) to convert to; those of the images if all have the same.
        size: Pixels of height and width, to resize and crop to; those of the images if all have it.
        names: Of the classes, if they are known: a data set with others is refused.
        cache: Folder of the decoded images; ``energy_at`` in the user's cache folder by default.
        download: Whether it may be fetched.

    Raises:
        ImportError: if the package ``datasets`` is missing.
        FileNotFoundError: if the data set is not available.
        ValueError: if it has no images, classes or splits, or these do not fit together.
    """
    require(CHANNELS, channels=channels)
    require(or_null(integer(1)), size=size)
    require_package("datasets", "huggingface", "dataset=huggingface")
    parts = _load(root, name, config, revision, download)
    image = _column(parts["train"], "image", image, "Image", name)
    label = _column(parts["train"], "label", label, "ClassLabel", name)
    known, labels = _classes(parts, label, name)
    if names is not None and list(names) != known:
        must = f"a data set with the classes {listed(names)}: it has {listed(known)}"
        raise ArgumentError("name", name, must)
    rows = _Rows(name, parts, image)
    store = decoded(rows, Path(name).name, rows.identity, cache, channels=channels, size=size)
    found, first = {}, 0
    for split, of in labels.items():
        found[split] = IndexedImages(store, first + torch.arange(len(of)), of)
        first += len(of)
    return splits_of(found, tuple(known))


def _load(
    root: Path, name: str, config: str | None, revision: str | None, download: bool
) -> dict[str, Any]:
    """The splits by our names for them."""
    import datasets  # pulls in pandas, which takes seconds

    local = root / Path(name).expanduser()
    datasets.disable_progress_bars()
    offline = datasets.config.HF_HUB_OFFLINE
    handlers = logging.getLogger("datasets").handlers
    try:
        for handler in handlers:
            handler.addFilter(_is_no_error)  # which are raised, too
        datasets.config.HF_HUB_OFFLINE = offline or not download
        with one_line_retries():
            found = datasets.load_dataset(
                str(local) if local.is_dir() else name, config, revision=revision
            )
    except Exception as error:  # its own kinds, and those of several clients
        reason = " ".join(str(error).split()) or type(error).__name__
        must = f"a data set of the Hugging Face Hub, or a folder of one: {reason}"
        raise MissingFilesError("name", name, must) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
        for handler in handlers:
            handler.removeFilter(_is_no_error)
    parts = {split: found[own] for split, names in SPLITS.items() for own in names if own in found}
    if "train" not in parts or len(parts) == 1:
        must = f"a data set with the splits train and test: it has {listed(list(found))}"
        raise ArgumentError("name", name, must)
    return parts


def _is_no_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR


def _column(part: Any, argument: str, wanted: str | None, kind: str, name: str) -> str:
    """A column: the one that is wanted, or the only one of a kind."""
    found = [str(one) for one, what in part.features.items() if type(what).__name__ == kind]
    columns = found if argument == "image" else list(part.features)
    if wanted is None and len(found) == 1:
        return found[0]
    if wanted is None or wanted not in columns:
        must = f"the name of a column of {name}: {listed(columns) or 'it has none of images'}"
        raise ArgumentError(argument, wanted, must)
    return wanted


def _classes(parts: dict[str, Any], column: str, name: str) -> tuple[list[str], dict[str, Labels]]:
    """Names of the classes, and labels of each split; what is not marked as a class is sorted."""
    kind = parts["train"].features[column]
    holds = str(getattr(kind, "dtype", type(kind).__name__))
    if not holds.startswith(CLASSES):
        raise ArgumentError("label", column, f"a column of integers or words: it holds {holds}")
    names = getattr(kind, "names", None)
    values = {split: part[column][:] for split, part in parts.items()}
    lacking = next((split for split, found in values.items() if None in found), None)
    if lacking is not None:
        must = f"a column with a class for each image: some of {lacking} have none"
        raise ArgumentError("label", column, must)
    if names is not None:
        values = {s: [names[k] if k >= 0 else "without name" for k in v] for s, v in values.items()}
    known = sorted(set(values["train"])) if names is None else list(names)
    if unused := [one for one in known if one not in set(values["train"])]:
        must = f"a data set with training images of each class: none is of {unused[0]}"
        raise ArgumentError("name", name, must)
    for split, found in values.items():
        require_same(Path(name), split, set(found), known)
    if len(known) < 2:
        raise ArgumentError("name", name, f"a data set with 2 classes or more: it has {known}")
    number = {value: k for k, value in enumerate(known)}
    labels = {s: torch.tensor([number[value] for value in v]) for s, v in values.items()}
    return list(map(str, known)), labels


class _Row:
    """An encoded image, one cell of a table."""

    def __init__(self, part: Any, row: int, column: str, text: str) -> None:
        self._part, self._row, self._column, self._text = part, row, column, text

    def open(self, mode: Literal["rb"], /) -> BufferedReader | BytesIO:
        found = self._part[self._row][self._column]
        if found is None:
            raise ValueError("no image")
        if found["bytes"] is None:
            return Path(found["path"]).open(mode)
        return BytesIO(found["bytes"])

    def __str__(self) -> str:
        return self._text


class _Rows(Sequence[_Row]):
    """The images of all splits, one after the other."""

    def __init__(self, name: str, parts: dict[str, Any], image: str) -> None:
        from datasets import Image

        self.name, self.image = name, image
        self.parts = {k: part.cast_column(image, Image(decode=False)) for k, part in parts.items()}
        self._places = [(split, row) for split, part in parts.items() for row in range(len(part))]
        tables = [file["filename"] for part in parts.values() for file in part.cache_files]
        # the name of a table depends on its data and their revision
        self.identity = [tables, [part._fingerprint for part in parts.values()], image]

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> _Row: ...
    @overload
    def __getitem__(self, at: slice) -> list[_Row]: ...
    def __getitem__(self, at: int | slice) -> _Row | list[_Row]:
        if isinstance(at, slice):
            return [self._row(*place) for place in self._places[at]]
        return self._row(*self._places[at])

    def __iter__(self) -> Iterator[_Row]:
        return (self._row(*place) for place in self._places)

    def _row(self, split: str, row: int) -> _Row:
        return _Row(self.parts[split], row, self.image, f"image {row} of {split} of {self.name}")
