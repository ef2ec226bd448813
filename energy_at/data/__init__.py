"""Data sets as bytes on the device, with per-image augmentation."""

from energy_at.data.datamodule import ImageData
from energy_at.data.images import ImageSet, split
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
    "TrainLoader",
    "as_floats",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "mnist5k",
    "mnist_texture",
    "split",
    "svhn",
    "synthetic",
    "tiny_imagenet",
]
