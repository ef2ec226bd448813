"""Tensor types of the signatures in this package, and what is wrong with other values."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from energy_at.core.rules import Rule

Images = Float[Tensor, "batch channel height width"]  # pixels in [0, 1]
Pixels = UInt8[Tensor, "batch channel height width"]  # as stored, 0 to 255
Logits = Float[Tensor, "batch classes"]
Labels = Int[Tensor, " batch"]
Targets = Float[Tensor, "batch classes"]  # a probability for each class
PerExample = Float[Tensor, " batch"]
Scalar = Float[Tensor, ""]

Classifier = Callable[[Images], Logits]

A_CLASSIFIER = Rule(
    "a network, a function of images that returns logits",
    lambda value: callable(value) and not isinstance(value, type),
)
_INTEGERS = (
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
)


def require_images(x: Any) -> None:
    """Raises ``ValueError`` unless it is a batch of floating-point images."""
    is_dense = isinstance(x, Tensor) and x.layout is torch.strided
    if not is_dense or x.ndim != 4 or not x.is_floating_point():
        bytes_too = ": divide bytes by 255" if getattr(x, "dtype", None) == torch.uint8 else ""
        raise ValueError(
            "images must be floating-point numbers of shape (batch, channels, height, width), got "
            f"{kind_of(x)}{bytes_too}"
        )


def require_indices(y: Any, n: int) -> None:
    """Raises ``ValueError`` unless it is a class index for each of ``n`` examples."""
    if not isinstance(y, Tensor) or y.dtype not in _INTEGERS or y.shape != (n,):
        raise ValueError(
            f"labels must be class indices, integers of shape ({n},), got {kind_of(y)}"
        )


def require_matrix(logits: Any, what: str = "logits", shape: torch.Size | None = None) -> None:
    """Raises ``ValueError`` unless it is a floating-point number for each example and class."""
    is_matrix = isinstance(logits, Tensor) and logits.ndim == 2 and logits.is_floating_point()
    if not is_matrix or (shape is not None and logits.shape != shape):
        form = "(batch, classes)" if shape is None else tuple(shape)
        raise ValueError(
            f"{what} must be floating-point numbers of shape {form}, got {kind_of(logits)}"
        )


@contextmanager
def labels_of(y: Labels | Targets, classes: int) -> Iterator[None]:
    """Names the label that torch has refused inside: read only then, as that waits for a GPU.

    Raises:
        ValueError: if a label is not that of a class.
    """
    try:
        yield
    except (IndexError, RuntimeError):
        if len(y) and y.device.type == "cpu" and not y.is_floating_point():
            require_labels(int(y.min()), int(y.max()), classes)
        raise


def require_labels(low: int, high: int, classes: int, place: str = "") -> None:
    """Raises ``ValueError`` unless the lowest and highest label are those of classes."""
    if low < 0 or high >= classes:
        counted = f": labels that count from 1 to {classes} need a class less" * (high == classes)
        raise ValueError(
            f"labels must be from 0 to {classes - 1}, as the network has {classes} logits, got "
            f"{low} to {high}{place}{counted}"
        )


def require_pixels(low: float, high: float, stage: str = "", place: str = "") -> None:
    """Raises ``ValueError`` if the lowest or the highest pixel of images is not in [0, 1]."""
    if low >= 0 and high <= 1:
        return
    remedy: str = "normalization is the network's first layer, not the data's"
    if not (math.isfinite(low) and math.isfinite(high)):
        remedy = "a pixel is not a finite number"
    elif low >= 0 and high > 2:
        remedy = "divide bytes by 255"
    who = f"{stage} images".strip()
    raise ValueError(f"{who} must lie in [0, 1], got [{low:g}, {high:g}]{place}: {remedy}")


def kind_of(value: Any) -> str:
    """A tensor's type and shape, or the type of what is none."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    sparse = "" if value.layout is torch.strided else "a sparse "
    return f"{sparse}{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
