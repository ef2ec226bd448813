"""Image files, decoded once into one memory-mapped file of bytes.

The file lies in a cache folder under a name that depends on everything its content depends on:
names, sizes and times of the images, the size and the channels they are converted to, and the
version of Pillow. It appears when it is complete, and can be deleted at any time.
"""

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from energy_at.core.files import digest, is_first, replacing, write_error
from energy_at.core.rules import ArgumentError
from energy_at.core.types import Pixels

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
GREY, COLOUR = ("1", "L", "LA"), ("RGB", "P", "RGBA", "PA", "CMYK", "YCbCr", "LAB", "HSV")
MODES = {1: "L", 3: "RGB"}  # of Pillow, by the number of channels
_BLOCK = 256  # images that are read before they are written
_VERSION = 1  # of what is done with an image

Content = TypeVar("Content")


class Header(NamedTuple):
    """What an image file says before it is decoded."""

    grey: bool
    width: int
    height: int


def decoded(
    files: Sequence[Path], root: Path, cache: Path, *, channels: int | None, size: int | None
) -> Pixels:
    """Pixels of image files, in their order, mapped from a file below ``cache``.

    An image is turned as its EXIF entry says, resized so that its shorter side is ``size``, and cut
    to the square in its middle; one of this size is taken as it is.

    Args:
        files: At least one.
        root: Folder that holds them.
        cache: Folder of the mapped file.
        channels: 1 (grey) or 3 (RGB); those of the files, if all have the same, by default.
        size: Height and width; those of the files, if all have the same, by default.

    Raises:
        ArgumentError: if the files do not agree in what is left to them, or the cache cannot be
            written.
        ValueError: if files cannot be read.
    """
    path = cache / f"{root.resolve().name}-{_key(files, root, channels, size)[:16]}.npy"
    if (found := _mapped(path, len(files))) is not None:
        return found
    headers = list(_each("reading headers", files, header))
    channels = _common_channels(files, headers) if channels is None else channels
    size = _common_size(headers) if size is None else size
    if why := write_error(cache):
        raise ArgumentError("cache", str(cache), f"a folder that can be written to ({why})")
    with replacing(path) as part, part.open("wb") as file:
        _decode(files, file, channels, size)
    if is_first():
        megabytes = path.stat().st_size / 1e6
        sys.stderr.write(f"decoded {len(files):,} images to {path} ({megabytes:,.0f} MB)\n")
    found = _mapped(path, len(files))
    assert found is not None
    return found


def image(path: Path, channels: int, size: int) -> NDArray[np.uint8]:
    """An image file as bytes of shape (channels, size, size)."""
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened)
        if (
            upright.has_transparency_data
            and np.asarray(upright.convert("RGBA"))[..., 3].min() < 255
        ):
            raise ValueError("transparent pixels")
        fitted = ImageOps.fit(upright.convert(MODES[channels]), (size, size))
    array = np.asarray(fitted, dtype=np.uint8)
    return array.reshape(size, size, channels).transpose(2, 0, 1)


def header(path: Path) -> Header:
    """Channels and size of an image file, as they are shown."""
    if path.stat().st_size == 0:
        raise ValueError("0 bytes")
    with Image.open(path) as opened:
        if opened.mode not in (*GREY, *COLOUR):
            raise ValueError(f"pixels of the mode {opened.mode} instead of 8 bits")
        turned = opened.getexif().get(0x0112, 1) > 4  # the entry Orientation
        width, height = opened.size[::-1] if turned else opened.size
        return Header(opened.mode in GREY, width, height)


def shown(path: Path) -> str:
    """A path that can be printed, whatever its bytes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _key(files: Sequence[Path], root: Path, channels: int | None, size: int | None) -> str:
    listed = []
    for path in files:
        name = shown(path.relative_to(root))
        # a link to a missing file is reported with all that cannot be read
        state = path.stat() if path.exists() else path.lstat()
        listed.append((name, state.st_size, state.st_mtime_ns))
    return digest([listed, channels, size, PIL.__version__, _VERSION])


def _mapped(path: Path, images: int) -> Pixels | None:
    """The pixels of a cached file; None if it is missing or cut off."""
    try:
        array = np.load(path, mmap_mode="c")
    except (OSError, ValueError, EOFError):
        return None
    return torch.from_numpy(array) if len(array) == images else None


def _decode(files: Sequence[Path], file: BinaryIO, channels: int, size: int) -> None:
    """Writes an array of numpy's format; through a map a full disk would end the process."""
    form = {"descr": "|u1", "fortran_order": False, "shape": (len(files), channels, size, size)}
    np.lib.format.write_array_header_1_0(file, form)
    for pixels in _each("decoding", files, lambda path: image(path, channels, size)):
        file.write(pixels.tobytes())


def _each(what: str, files: Sequence[Path], read: Callable[[Path], Content]) -> Iterator[Content]:
    """What is read of each file, in their order; files that cannot be read are named at the end."""
    broken: list[str] = []
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        tqdm(total=len(files), desc=what, unit="image", leave=False, disable=None) as bar,
    ):
        warnings.simplefilter("ignore")  # Pillow's, of large images and odd palettes
        for first in range(0, len(files), _BLOCK):
            block = files[first : first + _BLOCK]
            for path, found in zip(block, pool.map(partial(_attempt, read), block), strict=True):
                if isinstance(found, Exception):
                    broken.append(f"{shown(path)} ({_reason(found)})")
                else:
                    yield found
            bar.update(len(block))
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise ValueError(
            f"cannot read {', '.join(broken[:3])}{more}: replace or remove "
            + ("the file" if len(broken) == 1 else f"the {len(broken)} files")
        )


def _attempt(read: Callable[[Path], Content], path: Path) -> Content | Exception:
    try:
        return read(path)
    except Exception as error:  # Pillow raises several kinds for each format
        return error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "a link to a missing file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return " ".join(str(error).split()) or type(error).__name__


def _common_channels(files: Sequence[Path], headers: Sequence[Header]) -> int:
    grey = [path for path, found in zip(files, headers, strict=True) if found.grey]
    if 0 < len(grey) < len(files):
        colour = next(path for path, found in zip(files, headers, strict=True) if not found.grey)
        must = (
            f"3 to make all images RGB, or 1 to make all grey: {len(grey):,} of {len(files):,} are "
            f"grey, such as {shown(grey[0])}, and others are not, such as {shown(colour)}"
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
