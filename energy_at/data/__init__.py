"""Data sets as bytes, on the device or in a file, with per-image augmentation."""

from energy_at.data.arrays import npz
from energy_at.data.datamodule import ImageData
from energy_at.data.hub import huggingface
from energy_at.data.image_folder import folder
from energy_at.data.images import ImageSet, IndexedImages, Splits, split
from energy_at.data.loaders import EvalLoader, TrainLoader, as_floats
from energy_at.data.readers import (
    cifar10,
    cifar100,
    digits,
    fashion_mnist,
    mnist5k,
    mnist_texture,
    svhn,
    synthetic,
    tiny_imagenet,
)

__all__ = [
    "EvalLoader",
    "ImageData",
    "ImageSet",
    "IndexedImages",
    "Splits",
    "TrainLoader",
    "as_floats",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "folder",
    "huggingface",
    "mnist5k",
    "mnist_texture",
    "npz",
    "split",
    "svhn",
    "synthetic",
    "tiny_imagenet",
]
