"""Encoded images, such as files, decoded once into one memory-mapped file of bytes.

The file lies in a cache folder under a name that depends on everything its content depends on: what
identifies the images, the size and the channels they are converted to, and the version of Pillow.
It appears when it is complete, and can be deleted at any time. One process decodes; others that
need the same file wait for it.
"""

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from energy_at.core.files import digest, is_first, replacing, user_cache, write_error
from energy_at.core.lock import waiting_for
from energy_at.core.rules import ArgumentError
from energy_at.core.types import Pixels

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
GREY, COLOUR = ("1", "L", "LA"), ("RGB", "P", "RGBA", "PA", "CMYK", "YCbCr", "LAB", "HSV")
MODES = {1: "L", 3: "RGB"}  # of Pillow, by the number of channels
_BLOCK = 256  # images that are read before they are written
_VERSION = 1  # of what is done with an image

Content = TypeVar("Content")


@runtime_checkable
class Encoded(Protocol):
    """An image file, or one inside another file; its text names it in messages."""

    def open(self, mode: Literal["rb"], /) -> BufferedReader | BytesIO: ...


class Header(NamedTuple):
    """What an image says before it is decoded."""

    grey: bool
    width: int
    height: int


def decoded_files(
    files: Sequence[Path],
    root: Path,
    cache: str | Path | None,
    *,
    channels: int | None,
    size: int | None,
) -> Pixels:
    """``decoded`` of the files below a folder, identified by names, sizes and times."""
    state = []
    for path in files:
        # a link to a missing file is reported with all that cannot be read
        found = path.stat() if path.exists() else path.lstat()
        state.append((shown(path.relative_to(root)), found.st_size, found.st_mtime_ns))
    return decoded(files, root.resolve().name, state, cache, channels=channels, size=size)


def decoded(
    images: Sequence[Encoded],
    name: str,
    identity: Any,
    cache: str | Path | None,
    *,
    channels: int | None,
    size: int | None,
) -> Pixels:
    """Pixels of encoded images, in their order, mapped from a file below ``cache``.

    An image is turned as its EXIF entry says, resized so that its shorter side is ``size``, and cut
    to the square in its middle; one of this size is taken as it is.

    Args:
        images: At least one.
        name: With which the name of the mapped file begins.
        identity: What JSON can hold and is the same only for the same images.
        cache: Folder of the mapped file; ``user_cache()`` by default.
        channels: 1 (grey) or 3 (RGB); those of the images, if all have the same, by default.
        size: Height and width; those of the images, if all have the same, by default.

    Raises:
        ArgumentError: if the images do not agree in what is left to them, or the cache cannot be
            written.
        ValueError: if images cannot be read.
    """
    folder = user_cache() if cache is None else Path(cache).expanduser()

    def named(channels: int | None, size: int | None) -> Path:
        key = digest([identity, channels, size, PIL.__version__, _VERSION])
        return folder / f"{name}-{key[:16]}.npy"

    asked = named(channels, size)
    if (found := _mapped(asked, len(images))) is not None:
        return found
    headers = list(_each("reading headers", images, header))
    channels = _common_channels(images, headers) if channels is None else channels
    size = _common_size(headers) if size is None else size
    if why := write_error(folder):
        raise ArgumentError("cache", str(folder), f"a folder that can be written to ({why})")
    path = named(channels, size)  # a run, whose configuration holds what was found, asks for it
    with waiting_for(path.with_name(f".{path.name}.lock"), path):
        if (found := _mapped(path, len(images))) is None:
            with replacing(path) as part, part.open("wb") as file:
                _decode(images, file, channels, size)
            if is_first():
                megabytes = path.stat().st_size / 1e6
                sys.stderr.write(
                    f"decoded {len(images):,} images to {path} ({megabytes:,.0f} MB)\n"
                )
            found = _mapped(path, len(images))
    if asked != path:
        with suppress(OSError):  # without links, headers are read again
            asked.unlink(missing_ok=True)
            asked.symlink_to(path.name)
    assert found is not None
    return found


def image(encoded: Encoded, channels: int, size: int) -> NDArray[np.uint8]:
    """An image as bytes of shape (channels, size, size)."""
    with encoded.open("rb") as file, Image.open(file) as opened:
        upright = ImageOps.exif_transpose(opened)
        if (
            upright.has_transparency_data
            and np.asarray(upright.convert("RGBA"))[..., 3].min() < 255
        ):
            raise ValueError("transparent pixels")
        fitted = ImageOps.fit(upright.convert(MODES[channels]), (size, size))
    array = np.asarray(fitted, dtype=np.uint8)
    return array.reshape(size, size, channels).transpose(2, 0, 1)


def header(encoded: Encoded) -> Header:
    """Channels and size of an image, as it is shown."""
    with encoded.open("rb") as file:
        if not file.read(1):
            raise ValueError("0 bytes")
        file.seek(0)
        with Image.open(file) as opened:
            if opened.mode not in (*GREY, *COLOUR):
                raise ValueError(f"pixels of the mode {opened.mode} instead of 8 bits")
            frames = getattr(opened, "n_frames", 1)
            if frames > 1 and opened.format != "MPO":  # a photo with its preview
                raise ValueError(f"{frames} frames instead of one image")
            turned = opened.getexif().get(0x0112, 1) > 4  # the entry Orientation
            width, height = opened.size[::-1] if turned else opened.size
            return Header(opened.mode in GREY, width, height)


def is_other_image(path: Path) -> bool:
    """Whether a file is an image of a kind that is not read; notes and tables are none."""
    suffix = path.suffix.lower()
    if suffix in (".heic", ".heif", *SUFFIXES):  # the first two are unknown to Pillow
        return suffix not in SUFFIXES
    with suppress(OSError, Image.DecompressionBombError), Image.open(path):
        return True
    return False


def shown(encoded: Encoded) -> str:
    """The name of an image that can be printed, whatever the bytes of its path."""
    return os.fsencode(str(encoded)).decode("utf-8", "backslashreplace")


def _mapped(path: Path, images: int) -> Pixels | None:
    """The pixels of a cached file; None if it is missing or cut off."""
    try:
        array = np.load(path, mmap_mode="c")
    except (OSError, ValueError, EOFError):
        return None
    return torch.from_numpy(array) if len(array) == images else None


def _decode(images: Sequence[Encoded], file: BinaryIO, channels: int, size: int) -> None:
    """Writes an array of numpy's format; through a map a full disk would end the process."""
    form = {"descr": "|u1", "fortran_order": False, "shape": (len(images), channels, size, size)}
    np.lib.format.write_array_header_1_0(file, form)
    for pixels in _each("decoding", images, lambda one: image(one, channels, size)):
        file.write(pixels.tobytes())


def _each(
    what: str, images: Sequence[Encoded], read: Callable[[Encoded], Content]
) -> Iterator[Content]:
    """What is read of each image, in their order; unreadable ones are named at the end."""
    broken: list[str] = []
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        tqdm(total=len(images), desc=what, unit="image", leave=False, disable=None) as bar,
    ):
        warnings.simplefilter("ignore")  # Pillow's, of large images and odd palettes
        for first in range(0, len(images), _BLOCK):
            block = images[first : first + _BLOCK]
            for one, found in zip(block, pool.map(partial(_attempt, read), block), strict=True):
                if isinstance(found, Exception):
                    broken.append(f"{shown(one)} ({_reason(found)})")
                else:
                    yield found
            bar.update(len(block))
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise ValueError(
            f"cannot read {', '.join(broken[:3])}{more}: replace or remove "
            + ("the file" if len(broken) == 1 else f"the {len(broken)} files")
        )


def _attempt(read: Callable[[Encoded], Content], encoded: Encoded) -> Content | Exception:
    try:
        return read(encoded)
    except Exception as error:  # Pillow raises several kinds for each format
        return error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "a link to a missing file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return " ".join(str(error).split()) or type(error).__name__


def _common_channels(images: Sequence[Encoded], headers: Sequence[Header]) -> int:
    grey = [one for one, found in zip(images, headers, strict=True) if found.grey]
    if 0 < len(grey) < len(images):
        colour = next(one for one, found in zip(images, headers, strict=True) if not found.grey)
        must = (
            f"3 to make all images RGB, or 1 to make all grey: {len(grey):,} of {len(images):,} "
            f"are grey, such as {shown(grey[0])}, and others are not, such as {shown(colour)}"
        )
        raise ArgumentError("channels", None, must)
    return 1 if grey else 3


def _common_size(headers: Sequence[Header]) -> int:
    sizes = sorted({(found.width, found.height) for found in headers})
    (width, height), last = sizes[0], sizes[-1]
    if len(sizes) == 1 and width == height:
        return width
    of = f"from {width}x{height} to {last[0]}x{last[1]}" if len(sizes) > 1 else f"{width}x{height}"
    raise ArgumentError(
        "size", None, f"a number of pixels, such as 32, to resize and crop to: images are {of}"
    )
