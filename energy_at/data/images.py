"""Labelled images, stored as bytes."""

from dataclasses import dataclass

import torch
from sklearn.model_selection import train_test_split

from energy_at.core.files import sha256
from energy_at.core.rules import integer, or_null, require
from energy_at.core.types import Labels, Pixels


@dataclass(frozen=True)
class ImageSet:
    """Images and labels in the same order."""

    pixels: Pixels  # 0 to 255; the network takes pixels / 255
    labels: Labels

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.labels):
            raise ValueError(f"{len(self.pixels)} images but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def digests(self) -> list[str]:
        """SHA-256 of the pixels and of the labels; they depend on the order."""
        found = (self.pixels, self.labels)
        return [sha256(each.cpu().contiguous().flatten().numpy()) for each in found]

    def take(self, indices: Labels | slice) -> "ImageSet":
        return ImageSet(self.pixels[indices], self.labels[indices])

    def first(self, n: int | None) -> "ImageSet":
        """The first ``n`` images; all for ``None``.

        Raises:
            ValueError: if there are fewer, or ``n`` is no number of images.
        """
        require(or_null(integer(1, len(self))), n=n)
        return self.take(slice(n))

    def to(self, device: torch.device | str) -> "ImageSet":
        return ImageSet(self.pixels.to(device), self.labels.to(device))


def split(images: ImageSet, held_out: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """Split off ``held_out`` images by seed, stratified by class.

    Returns:
        The remaining images, then those held out.

    Raises:
        ValueError: if nothing would remain, or a class could not be on both sides.
    """
    classes = int(images.labels.max()) + 1
    smallest = int(images.labels.bincount(minlength=classes).min())
    if smallest < 2:
        raise ValueError(f"cannot split: a class has {smallest} images, each needs at least 2")
    if not classes <= held_out <= len(images) - classes:
        raise ValueError(
            f"cannot hold out {held_out} of {len(images)} images of {classes} classes: "
            f"choose from {classes} to {len(images) - classes}"
        )
    rest, held = train_test_split(
        torch.arange(len(images)).numpy(),
        test_size=held_out,
        random_state=seed,
        stratify=images.labels.numpy(),
    )
    return images.take(torch.from_numpy(rest)), images.take(torch.from_numpy(held))
