"""The data of a run: training images, images held out of them, test images."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule

from energy_at.core.ranges import Storage, require_ranges
from energy_at.core.rules import SHARE, ArgumentError, integer, require
from energy_at.data.arrays import extra_images
from energy_at.data.images import ImageSet, IndexedImages, Splits, as_splits, split
from energy_at.data.loaders import EvalLoader, TrainLoader, count_extra

Reader = Callable[[Path], Splits | tuple[ImageSet, ImageSet]]  # a pair: training and test images
GPU_SHARE = 0.25  # of its memory that training images may fill


@dataclass(eq=False, repr=False)
class ImageData(LightningDataModule):
    """Reads a data set once and serves it from the trainer's device.

    ``batch_size`` and ``eval_batch_size`` count the images of all processes together.
    """

    reader: Reader  # of the images, from ``root``
    root: str | Path  # folder of the data
    _: KW_ONLY
    batch_size: int
    val_size: int  # images to validate on, chosen by ``seed``: the data set's own, or held out
    subset: int | None = None  # train on this many of the rest, chosen by ``seed``; None for all
    seed: int = 0  # of the split, of the order, and of the augmentation
    pad: int = 0  # of the random crop
    flip: bool = False  # mirror images at random
    channels_last: bool = False
    eval_batch_size: int = 250
    # where training images are kept, which changes no result: on disk, or in the device's memory;
    # by default those in a file stay there, unless a GPU has four times the memory
    storage: Storage = "auto"
    extra: str | Path | None = None  # .npz file of more training images, such as synthetic ones
    extra_share: float | None = None  # of the images of each batch

    def __post_init__(self) -> None:
        super().__init__()
        require_ranges("data.ImageData", self)
        self._require_extra()
        self._device = torch.device("cpu")
        self._loader: TrainLoader | None = None
        self._position: dict[str, Any] | None = None

    def setup(self, stage: str | None = None) -> None:
        """Read the data set, once.

        Raises:
            FileNotFoundError: if the data is missing and cannot be downloaded.
            ValueError: if there are fewer images than asked for.
        """
        _ = self._sets

    def _require_extra(self) -> None:
        share = self.extra_share
        if self.extra is None and share is not None:
            raise ArgumentError("extra_share", share, "null while extra names no file of images")
        if self.extra is not None:
            require(SHARE, extra_share=share)
            assert share is not None
            if not 0 < count_extra(share, self.batch_size) < self.batch_size:
                must = f"enough for one image of each kind in a batch of {self.batch_size}"
                raise ArgumentError("extra_share", share, must)

    @property
    def train(self) -> ImageSet:
        return self._sets[0]

    @property
    def val(self) -> ImageSet:
        return self._sets[1]

    @property
    def test(self) -> ImageSet:
        return self._sets[2]

    def train_dataloader(self) -> TrainLoader:
        self._loader = TrainLoader(
            self._stored(self.train),
            self.batch_size,
            seed=self.seed,
            pad=self.pad,
            flip=self.flip,
            extra=None if self.extra_images is None else self._stored(self.extra_images),
            extra_share=self.extra_share or 0.0,
            channels_last=self.channels_last,
            device=self.device,
            rank=self.rank,
            world=self.world,
        )
        if self._position:
            self._loader.load_state_dict(self._position)
        return self._loader

    def state_dict(self) -> dict[str, Any]:
        # Lightning saves the loader's own too, but does not restore it if the schedule has asked
        # for the number of steps before.
        return self._loader.state_dict() if self._loader else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._position = state_dict
        if self._loader and state_dict:
            self._loader.load_state_dict(state_dict)

    def val_dataloader(self) -> EvalLoader:
        return self.eval_loader(self.val)

    def eval_loader(self, images: ImageSet) -> EvalLoader:
        return EvalLoader(
            images.to(self.device),
            self.eval_batch_size,
            channels_last=self.channels_last,
            rank=self.rank,
            world=self.world,
        )

    @cached_property
    def extra_images(self) -> ImageSet | None:
        """Images that are mixed into every batch; read when a training needs them."""
        if self.extra is None:
            return None
        return extra_images(Path(self.extra).expanduser(), self.train)

    @cached_property
    def _sets(self) -> tuple[ImageSet, ImageSet, ImageSet]:
        splits = as_splits(self.reader(Path(self.root).expanduser()))
        require(integer(0, min(splits.train.shape[1:])), pad=self.pad)
        if splits.val is None:
            train, val = split(splits.train, self.val_size, self.seed)
            left = f"{len(splits.train)} training images less {self.val_size} held out"
        else:
            train, left = splits.train, f"{len(splits.train)} training images"
            val = self._drawn("val_size", self.val_size, splits.val, f"{len(splits.val)} images")
        if self.subset is not None:
            train = self._drawn("subset", self.subset, train, left)
        return train, val, splits.test

    def _drawn(self, argument: str, n: int, images: ImageSet, left: str) -> ImageSet:
        """Some of the images, by seed."""
        if n > len(images):
            raise ArgumentError(argument, n, f"at most {len(images)}: {left}")
        order = torch.Generator().manual_seed(self.seed)
        return images.take(torch.randperm(len(images), generator=order)[:n])

    def _stored(self, images: ImageSet) -> ImageSet:
        """Training images where they are kept: in the device's memory, or in their file."""
        mapped = isinstance(images, IndexedImages)
        leave = mapped and self.storage == "auto" and not self._fits(images)
        return images if leave or self.storage == "disk" else images.to(self.device)

    def _fits(self, images: ImageSet) -> bool:
        if self.device.type != "cuda":
            return False  # a mapped file is in the memory that the system has free
        memory = torch.cuda.get_device_properties(self.device).total_memory
        return len(images) * images.shape.numel() <= GPU_SHARE * memory

    @property
    def device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else self._device

    def place(self, device: torch.device) -> None:
        self._device = device

    @property
    def rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def world(self) -> int:
        return self.trainer.world_size if self.trainer else 1
