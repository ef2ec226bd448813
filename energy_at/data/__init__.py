"""Data sets as bytes on the device, with per-image augmentation."""

from energy_at.data.datamodule import ImageData
from energy_at.data.images import ImageSet, split
from energy_at.data.loaders import EvalLoader, TrainLoader, as_floats

__all__ = ["EvalLoader", "ImageData", "ImageSet", "TrainLoader", "as_floats", "split"]
