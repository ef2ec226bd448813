"""The data of a run: training images, images held out of them, test images."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule

from energy_at.core.rules import TRUTH, ArgumentError, integer, or_null, require
from energy_at.data.images import ImageSet, split
from energy_at.data.loaders import EvalLoader, TrainLoader


@dataclass(eq=False, repr=False)
class ImageData(LightningDataModule):
    """Reads a data set once and serves it from the trainer's device.

    ``batch_size`` and ``eval_batch_size`` count the images of all processes together.
    """

    reader: Callable[[Path], tuple[ImageSet, ImageSet]]  # training and test images, from ``root``
    root: str | Path  # folder of the data
    _: KW_ONLY
    batch_size: int
    val_size: int  # images of the training set held out to validate on, chosen by ``seed``
    subset: int | None = None  # train on this many of the rest, chosen by ``seed``; None for all
    seed: int = 0  # of the split, of the order, and of the augmentation
    pad: int = 0  # of the random crop
    flip: bool = False  # mirror images at random
    channels_last: bool = False
    eval_batch_size: int = 250

    def __post_init__(self) -> None:
        super().__init__()
        require(integer(1), batch_size=self.batch_size, eval_batch_size=self.eval_batch_size)
        require(integer(1), val_size=self.val_size)
        require(or_null(integer(1)), subset=self.subset)
        require(integer(0), pad=self.pad)
        require(TRUTH, flip=self.flip)
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
            self.train.to(self.device),
            self.batch_size,
            seed=self.seed,
            pad=self.pad,
            flip=self.flip,
            channels_last=self.channels_last,
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
    def _sets(self) -> tuple[ImageSet, ImageSet, ImageSet]:
        everything, test = self.reader(Path(self.root).expanduser())
        train, val = split(everything, self.val_size, self.seed)
        if self.subset is not None:
            if self.subset > len(train):
                left = f"{len(everything)} training images less {self.val_size} held out"
                raise ArgumentError("subset", self.subset, f"at most {len(train)}: {left}")
            order = torch.Generator().manual_seed(self.seed)
            train = train.take(torch.randperm(len(train), generator=order)[: self.subset])
        return train, val, test

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
