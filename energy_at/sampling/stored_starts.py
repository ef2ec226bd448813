"""Start images that lie in files: one of the user, or a set of images of another kind."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from energy_at.core.files import digest, sha256
from energy_at.core.ranges import require_ranges
from energy_at.core.rng import CountedNoise
from energy_at.core.rules import ArgumentError
from energy_at.core.types import Labels, Pixels
from energy_at.data.decoding import image
from energy_at.data.other_images import other_images
from energy_at.sampling.starts import ANCHOR_DRAW, Fitted, Points, Start
from energy_at.sampling.training_images import Features, TrainingImages, as_rows


@dataclass(frozen=True)
class Picture(Start):
    """An image of the user, the same for every sample; it is cropped to a square and resized.

    Attributes:
        file: The image.

    Raises:
        ArgumentError: if it cannot be read.
    """

    file: str | None = None

    def __post_init__(self) -> None:
        if self.file is None or not Path(self.file).is_file():
            raise ArgumentError("file", self.file, "an image file (png, jpg, webp or bmp)")

    @property
    def digests(self) -> Mapping[str, str]:
        assert self.file is not None
        return {"sha256": sha256(Path(self.file).read_bytes())}

    def fit(self, images: TrainingImages, features: Features | None = None) -> Fitted:
        assert self.file is not None
        channels, size, _ = images.pixels[0].shape
        try:
            pixels = image(Path(self.file), channels, size)
            return {"picture": as_rows(torch.from_numpy(pixels.copy())[None])}
        except (OSError, ValueError) as error:
            why = str(error)
        # out of the handler: what is raised first is what a command shows
        raise ArgumentError("file", self.file, f"an image file (png, jpg, webp or bmp): {why}")

    def draw(
        self, label: int, number: Labels, noise: CountedNoise, images: TrainingImages, fit: Fitted
    ) -> Points:
        return fit["picture"].expand(len(noise.keys), -1)


@dataclass(frozen=True)
class OtherImages(Start):
    """Stored images that the network was not trained on, cropped to a square and resized.

    Attributes:
        images: A folder of images, or an ``.npz`` file.
        by: ``"number"``: sample ``i`` starts from image ``i``, as DAT samples (Yin et al., 2025).
            ``"features"``: each sample draws a training image of its class, and starts from the
            stored image whose features of the robust network are nearest.
        closest: Of ``by="features"``: share of the training images of a class, in (0, 1], that one
            is drawn of: those with the nearest stored images.

    Raises:
        ArgumentError: if it is neither.
    """

    images: str | None = None
    by: str = "number"
    closest: float = 1.0

    def __post_init__(self) -> None:
        require_ranges("sampling.OtherImages", self)
        if self.images is None or not Path(self.images).expanduser().exists():
            must = "a folder of images or an .npz file, of images that are no training images"
            raise ArgumentError("images", self.images, must)

    @property
    def digests(self) -> Mapping[str, str]:
        assert self.images is not None
        path = Path(self.images).expanduser()
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        return {"sha256": digest([sha256(file.read_bytes()) for file in files])}

    @property
    def needs_features(self) -> bool:
        return self.by == "features"

    def require(self, images: TrainingImages, n: int) -> None:
        stored = len(self._stored(images))
        if self.by == "number" and stored < n:
            must = f"a set of at least n={n} images, one for each sample: it holds {stored}"
            raise ArgumentError("images", self.images, must)

    def others(self, images: TrainingImages) -> Pixels:
        return self._stored(images)

    def fit(self, images: TrainingImages, features: Features | None = None) -> Fitted:
        """Of ``by="features"``, the stored image nearest to each training image, and how near."""
        if self.by == "number":
            return {}
        assert features is not None
        ours, theirs = features.split([len(images.labels), len(features) - len(images.labels)])
        found = [torch.cdist(rows, theirs).min(1) for rows in ours.split(1024)]
        distances, nearest = (torch.cat(columns) for columns in zip(*found, strict=True))
        return {"nearest": nearest.to(torch.int32), "distances": distances}

    def draw(
        self, label: int, number: Labels, noise: CountedNoise, images: TrainingImages, fit: Fitted
    ) -> Points:
        stored = self._stored(images)
        if self.by == "features":
            places = images.places(label)
            share = noise.uniform(ANCHOR_DRAW, 1)[:, 0]
            places = places[fit["distances"][places].argsort(stable=True)]
            anchors = places[(share * math.ceil(self.closest * len(places))).long()]
            chosen = fit["nearest"][anchors].long()
        else:  # a block may count beyond the samples that are wanted
            chosen = number % len(stored)
        return as_rows(stored[chosen.cpu()].to(images.pixels.device))

    def _stored(self, images: TrainingImages) -> Pixels:
        assert self.images is not None
        channels, size, _ = images.pixels[0].shape
        path = Path(self.images).expanduser().absolute()
        return _read(path, path.stat().st_mtime_ns, channels, size)


@lru_cache(maxsize=1)
def _read(path: Path, _modified: int, channels: int, size: int) -> Pixels:
    return other_images(path, channels, size, "images")
