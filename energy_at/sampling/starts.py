"""Where samples begin: noise, or normal distributions fitted to the training images of a class.

A start is fitted once, to tensors that can be kept in a file; whoever has them and the images draws
from it. The last bits of a draw depend on its company, so whoever wants the same bits again draws
in the same company: in whole blocks of ``BLOCK`` numbers, whoever of them is wanted.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from energy_at.core.rng import CountedNoise
from energy_at.core.rules import integer, number, one_of, require
from energy_at.sampling.pca import Principal, kept, principal
from energy_at.sampling.training_images import TrainingImages, as_rows

BLOCK = 32
ANCHOR, SPREAD = -2, -3  # numbers of draws: steps count from 0, guidance has -1
Fitted = Mapping[str, Tensor]
Points = Float[Tensor, "batch pixels"]
Features = Float[Tensor, "images features"]


class Start(ABC):
    """A distribution of images for each class; fitted to pixels alone unless it says otherwise."""

    @property
    def wants_features(self) -> bool:
        """Whether it is fitted to features of a network too."""
        return False

    def require(self, images: TrainingImages) -> None:
        """Refuses images that it cannot be fitted to, before anything is done.

        Raises:
            ValueError: if a class has too few images.
        """
        images.require_all()

    @abstractmethod
    def fit(self, images: TrainingImages, features: Features | None = None) -> Fitted:
        """What is to be kept, found once for a data set and a network.

        Raises:
            ValueError: if a class has too few images.
        """

    @abstractmethod
    def draw(self, label: int, noise: CountedNoise, images: TrainingImages, fit: Fitted) -> Points:
        """An image of the class for each key of the noise, as rows of pixels."""


@dataclass(frozen=True)
class Uniform(Start):
    """Every pixel uniform in [0, 1]."""

    def fit(self, images: TrainingImages, features: Features | None = None) -> Fitted:
        """Nothing to be found."""
        return {}

    def draw(self, label: int, noise: CountedNoise, images: TrainingImages, fit: Fitted) -> Points:
        """Uniform noise, whatever the class."""
        return noise.uniform(SPREAD, images.pixels[0].numel())


@dataclass(frozen=True)
class ClassGaussian(Start):
    """The normal distribution with mean and covariance of the class (Santurkar et al., 2019).

    Drawn as ``mean + scale X^T z / sqrt(n - 1)`` with the centred images ``X`` and ``z`` from
    N(0, 1): its covariance is that of the images, without finding any component of it.

    Attributes:
        scale: Standard deviations are multiplied by it.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        require("scale", self.scale, number(0))

    def fit(self, images: TrainingImages, features: Features | None = None) -> Fitted:
        """The means of the classes."""
        return {"means": torch.stack([images.of(c).mean(0) for c in range(images.classes)])}

    def draw(self, label: int, noise: CountedNoise, images: TrainingImages, fit: Fitted) -> Points:
        """Draws of the class's normal distribution."""
        rows = images.of(label)
        z = noise.normal(SPREAD, len(rows)) / max(len(rows) - 1, 1) ** 0.5
        mean = fit["means"][label]
        drawn: Tensor = mean + self.scale * z @ (rows - mean)
        return drawn


@dataclass(frozen=True)
class ClassPCA(Start):
    """The class's normal distribution along its main principal components.

    ``x = mean + scale sum_i a_i sd_i u_i`` with ``a_i`` from N(0, 1), components kept up to a share
    of the variance; the predecessor's start (Mirza et al., ECCV 2024), its scale in standard
    deviations: 0.005 of its singular values with 5,000 images is 0.354.

    Attributes:
        variance: Share of the variance that is kept, in (0, 1].
        scale: Standard deviations are multiplied by it.
    """

    variance: float = 0.99
    scale: float = 0.354

    def __post_init__(self) -> None:
        require("variance", self.variance, number(0, 1, above=True))
        require("scale", self.scale, number(0))

    def fit(self, images: TrainingImages, features: Features | None = None) -> Fitted:
        """The principal components of every class."""
        found: dict[str, Tensor] = {}
        for label in range(images.classes):
            part = principal(images.of(label), self.variance)
            found[f"mean.{label}"] = part.mean
            found[f"vectors.{label}"] = part.vectors.contiguous()
            found[f"deviations.{label}"] = part.deviations
            found[f"dual.{label}"] = torch.tensor(part.dual)
        return found

    def components(self, label: int, fit: Fitted) -> Principal:
        """The principal components of a class."""
        names = ("mean", "vectors", "deviations")
        mean, vectors, deviations = (fit[f"{name}.{label}"] for name in names)
        return Principal(mean, vectors, deviations, bool(fit[f"dual.{label}"]))

    def draw(self, label: int, noise: CountedNoise, images: TrainingImages, fit: Fitted) -> Points:
        """Draws of the class's normal distribution along its components."""
        part = self.components(label, fit)
        z = noise.normal(SPREAD, len(part.vectors))
        return part.drawn(images.of(label), z, self.scale)


@dataclass(frozen=True)
class LocalPCA(Start):
    """The normal distribution of an image of the class and its nearest neighbours in the class.

    For each sample an anchor is drawn among the training images of its class; principal components
    are found of the anchor and its ``k`` nearest neighbours. Our reading of "local class-wise PCA"
    (arXiv 2505.22486), which we know by its abstract.

    Attributes:
        k: Neighbours of an anchor, besides itself.
        by: ``"features"`` of the robust network, or ``"pixels"``: what is near.
        variance: Share of the variance that is kept, in (0, 1].
        scale: Standard deviations are multiplied by it.
    """

    k: int = 20
    by: str = "features"
    variance: float = 0.99
    scale: float = 1.0

    def __post_init__(self) -> None:
        require("k", self.k, integer(1))
        require("by", self.by, one_of("features", "pixels"))
        require("variance", self.variance, number(0, 1, above=True))
        require("scale", self.scale, number(0))

    @property
    def wants_features(self) -> bool:
        """Whether neighbours are found by them."""
        return self.by == "features"

    def require(self, images: TrainingImages) -> None:
        """Refuses classes that are smaller than a neighbourhood.

        Raises:
            ValueError: with the first of them.
        """
        for label in range(images.classes):
            others = len(images.places(label)) - 1
            if self.k > others:
                noun = "image" if others == 1 else "images"
                raise ValueError(
                    f"start.k={self.k} is more than the {others} other {noun} of class {label}: "
                    "choose a smaller one"
                )

    def fit(self, images: TrainingImages, features: Features | None = None) -> Fitted:
        """The neighbours of every training image, by their places within the class, nearest first.

        Raises:
            ValueError: if a class has too few images.
        """
        self.require(images)
        found = torch.full((len(images.labels), self.k), -1, dtype=torch.int32)
        for label in range(images.classes):
            places = images.places(label)
            rows = images.of(label)
            if self.by == "features":
                assert features is not None
                rows = features[places]
            found[places.cpu()] = _nearest(rows, self.k).cpu()
        return {"neighbours": found}

    def draw(self, label: int, noise: CountedNoise, images: TrainingImages, fit: Fitted) -> Points:
        """Draws of the normal distributions around anchors of the class."""
        places = images.places(label)
        share = noise.uniform(ANCHOR, 1)[:, 0]
        anchors = places[(share * len(places)).long()]
        around = places[fit["neighbours"][anchors.to(fit["neighbours"].device)].to(places)]
        chosen = torch.cat([anchors[:, None], around], 1)
        points = as_rows(images.pixels[chosen.flatten()]).reshape(*chosen.shape, -1)
        z = noise.normal(SPREAD, self.k + 1)
        return self._spread(points, z)

    def _spread(
        self,
        points: Float[Tensor, "batch near pixels"],
        z: Float[Tensor, "batch near"],
    ) -> Points:
        """The dual form of ``Principal.drawn`` for a batch of neighbourhoods."""
        mean = points.mean(1, keepdim=True)
        centred = points - mean
        values, vectors = torch.linalg.eigh((centred @ centred.mT).double())
        keep = kept(values.flip(1).clamp_min(0), self.variance).flip(1)
        along = (vectors.mT @ z.double()[:, :, None]) * keep[:, :, None]
        weights = (vectors @ along / self.k**0.5).to(points)
        drawn: Tensor = mean + self.scale * weights.mT @ centred
        return drawn[:, 0]


def _nearest(rows: Float[Tensor, "images entries"], k: int) -> Tensor:
    """Places of the nearest other rows, nearest first; always the same of rows at one distance."""
    found = []
    for first in range(0, len(rows), 1024):
        distances = torch.cdist(rows[first : first + 1024], rows)
        own = torch.arange(len(distances), device=rows.device)
        distances[own, own + first] = torch.inf
        found.append(distances.sort(stable=True, dim=1).indices[:, :k])
    return torch.cat(found).to(torch.int32)
