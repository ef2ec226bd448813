"""Images that a network was not trained on, made to fit it: of a folder, a file, any data set."""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from energy_at.core.rules import ArgumentError
from energy_at.core.types import Pixels
from energy_at.data.arrays import EXTRA, Arrays
from energy_at.data.decoding import SUFFIXES, decoded_files, is_other_image, shown
from energy_at.data.own_images import SPLITS

Fitted = UInt8[Tensor, "batch channels size size"]
_LUMA = torch.tensor([0.299, 0.587, 0.114])  # ITU-R 601, as Pillow makes an image grey
_BLOCK = 1024  # images that are resized at once


def other_images(path: Path, channels: int, size: int, argument: str) -> Pixels:
    """The images of a folder, at any depth, or of an ``.npz`` file; labels are not needed.

    Of a file with splits the test images; otherwise those of its array ``image``, ``images`` or
    ``x``.

    Args:
        path: The folder or the file.
        channels: 1 or 3, to convert to.
        size: Pixels of height and width, to resize and crop to.
        argument: With which the path was named, for messages.

    Raises:
        ArgumentError: if there are no images.
        ValueError: if some cannot be read.
    """
    if path.is_dir():
        visible = (p for p in path.rglob("*") if not p.name.startswith("."))
        found = sorted(p for p in visible if not p.is_dir())
        if (left := next(filter(is_other_image, found), None)) is not None:
            must = f"a folder of {', '.join(SUFFIXES)} files: {shown(left)} is another image"
            raise ArgumentError(argument, str(path), must)
        files = [file for file in found if file.suffix.lower() in SUFFIXES]
        if not files:
            must = f"a folder that holds images ({', '.join(SUFFIXES)})"
            raise ArgumentError(argument, str(path), must)
        return decoded_files(files, path, None, channels=channels, size=size)
    arrays = Arrays(path, argument)
    pair = arrays.pair(SPLITS["test"]) or arrays.first(EXTRA)
    name = pair[0] if pair else next((a for a, _ in EXTRA if a in arrays.names), None)
    if name is None:
        must = f"a file with an array images (test_images, image, x): it holds {arrays.listed}"
        raise ArgumentError(argument, str(path), must)
    return fit(arrays.pixels(name), channels, size)


def fit(pixels: Pixels, channels: int, size: int) -> Fitted:
    """Images of this form: grey or RGB, cropped to the square in the middle, and resized.

    Resized bilinearly, with antialiasing. Images of this form stay as they are, byte for byte.
    """
    side = min(pixels.shape[2:])
    top, left = ((extent - side) // 2 for extent in pixels.shape[2:])
    pixels = pixels[:, :, top : top + side, left : left + side]
    if pixels.shape[1:] == (channels, size, size):
        return pixels
    return torch.cat([_fit(part, channels, size) for part in pixels.split(_BLOCK)])


def _fit(pixels: Pixels, channels: int, size: int) -> Fitted:
    levels = pixels.float()
    if channels < levels.shape[1]:
        levels = torch.einsum("nchw,c->nhw", levels, _LUMA)[:, None]
    levels = F.interpolate(levels, (size, size), mode="bilinear", antialias=True)
    return levels.round().clamp(0, 255).to(torch.uint8).expand(-1, channels, -1, -1).contiguous()
