"""Data sets as bytes on the device, with per-image augmentation."""

from energy_at.data.images import ImageSet, split
from energy_at.data.loader import EvalLoader, TrainLoader, as_floats
from energy_at.data.module import ImageData

__all__ = ["EvalLoader", "ImageData", "ImageSet", "TrainLoader", "as_floats", "split"]
