"""Start distributions: uniform noise, or normal distributions fitted to a class's training images.

A start is fitted once, to tensors that are cached in a file. The last bits of a draw depend on the
batch it is drawn in, so samples are always drawn in whole blocks of ``BLOCK`` numbers.

With centred images ``X`` (n, d), the covariance ``X^T X / (n - 1)`` and the Gram matrix ``X X^T``
share their eigenvalues, and an eigenvector ``p`` of the latter gives the principal direction
``X^T p / |X^T p|``. Components are computed from the smaller of the two matrices.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from energy_at.core.ranges import require_ranges
from energy_at.core.rng import CountedNoise
from energy_at.core.rules import ArgumentError
from energy_at.core.types import Labels, Pixels
from energy_at.sampling.training_images import Features, Rows, TrainingImages, as_rows

BLOCK = 32
ANCHOR_DRAW, START_DRAW = -2, -3  # indices of noise draws: steps count from 0, guidance has -1
Fitted = Mapping[str, Tensor]
Points = Float[Tensor, "batch pixels"]


@dataclass(frozen=True)
class PrincipalComponents:
    """Mean and principal components of points (images, pixels).

    The orthonormal columns ``vectors`` are directions in pixels if there are more points than
    pixels, else weights of the points, eigenvectors of the Gram matrix.
    """

    mean: Float[Tensor, " pixels"]
    vectors: Float[Tensor, "entries components"]
    deviations: Float[Tensor, " components"]  # along the directions, in decreasing order

    def draw(self, points: Rows, z: Float[Tensor, "batch entries"], scale: float) -> Points:
        """Draw from the normal distribution with this mean, these components and deviations.

        ``z`` from N(0, 1) is projected onto the components of ``points``, so that their signs and
        order change no draw; ``scale`` multiplies the standard deviations.
        """
        along = z @ self.vectors
        if not _is_dual(points):
            return self.mean + scale * (along * self.deviations) @ self.vectors.T
        weights = along @ self.vectors.T / max(len(points) - 1, 1) ** 0.5
        drawn: Tensor = self.mean + scale * weights @ (points - self.mean)
        return drawn


def find_components(points: Rows, variance: float = 1.0) -> PrincipalComponents:
    """The fewest principal components that explain a share ``variance`` in (0, 1] of the variance.

    Raises:
        ValueError: if there are no points.
    """
    if not len(points):
        raise ValueError("no images to find principal components of")
    mean = points.mean(0)
    centred = (points - mean).double()
    matrix = centred @ centred.T if _is_dual(points) else centred.T @ centred
    values, vectors = torch.linalg.eigh(matrix)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    count = int(_keep_mask(values, variance).sum())
    deviations = (values[:count] / max(len(points) - 1, 1)).sqrt()
    dtype = points.dtype
    return PrincipalComponents(mean, vectors[:, :count].to(dtype), deviations.to(dtype))


def _is_dual(points: Rows) -> bool:
    """Whether the Gram matrix is the smaller of the two matrices."""
    return len(points) <= points.shape[1]


def _keep_mask(
    values: Float[Tensor, "*batch components"], variance: float
) -> Float[Tensor, "*batch components"]:
    """1 for the components to keep, 0 for the others; eigenvalues are in decreasing order.

    Eigenvalues below the precision of the largest count as zero: centring removes one direction.
    """
    total = values.sum(-1, keepdim=True)
    before = values.cumsum(-1) - values
    nonzero = values > 1e-10 * values.amax(-1, keepdim=True)
    return ((before < variance * total * (1 - 1e-12)) & nonzero).to(values)


class Start(ABC):
    """A start distribution for each class."""

    @property
    def needs_features(self) -> bool:
        """Whether it is fitted to features of the network too."""
        return False

    @property
    def digests(self) -> Mapping[str, str]:
        """Digests of the files that it reads: results depend on them as on its settings."""
        return {}

    def require(self, images: TrainingImages, n: int) -> None:
        """Check that every class has enough images, and that there are starts for ``n`` samples.

        Raises:
            ValueError: if there are too few.
        """
        return

    def others(self, images: TrainingImages) -> Pixels | None:
        """Images that features are needed of too; none by default."""
        return None

    def fit(self, images: TrainingImages, features: Features | None = None) -> Fitted:
        """Tensors to cache for a data set and a network; none by default.

        ``features`` are those of the training images, followed by those of ``others``.
        """
        return {}

    @abstractmethod
    def draw(
        self, label: int, number: Labels, noise: CountedNoise, images: TrainingImages, fit: Fitted
    ) -> Points:
        """Draw one image of the class for each sample, as rows of pixels.

        Args:
            label: The class.
            number: Of each sample.
            noise: Of each sample.
            images: The training images.
            fit: What ``fit`` has found of them.
        """


@dataclass(frozen=True)
class Uniform(Start):
    """Every pixel uniform in [0, 1]."""

    def draw(
        self, label: int, number: Labels, noise: CountedNoise, images: TrainingImages, fit: Fitted
    ) -> Points:
        return noise.uniform(START_DRAW, images.pixels[0].numel())


@dataclass(frozen=True)
class ClassGaussian(Start):
    """Normal distribution with the mean and covariance of the class (Santurkar et al., 2019).

    Drawn as ``mean + scale X^T z / sqrt(n - 1)`` with the centred images ``X`` (n, pixels) and
    ``z`` from N(0, 1), which has the covariance of the images without a decomposition of it.

    Attributes:
        scale: Factor of the standard deviations, >= 0.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        require_ranges("sampling.ClassGaussian", self)

    def fit(self, images: TrainingImages, features: Features | None = None) -> Fitted:
        return {"means": images.means().flatten(1)}

    def draw(
        self, label: int, number: Labels, noise: CountedNoise, images: TrainingImages, fit: Fitted
    ) -> Points:
        rows = images.of(label)
        z = noise.normal(START_DRAW, len(rows)) / max(len(rows) - 1, 1) ** 0.5
        mean = fit["means"][label]
        drawn: Tensor = mean + self.scale * z @ (rows - mean)
        return drawn


@dataclass(frozen=True)
class ClassPCA(Start):
    """Normal distribution along the principal components of the class (Mirza et al., ECCV 2024).

    ``x = mean + scale sum_i a_i sd_i u_i`` with ``a_i`` from N(0, 1). The paper scales singular
    values by 0.005: 0.354 standard deviations with 5,000 images.

    Attributes:
        variance: Share of the variance that is kept, in (0, 1].
        scale: Factor of the standard deviations, >= 0.
    """

    variance: float = 0.99
    scale: float = 0.354

    def __post_init__(self) -> None:
        require_ranges("sampling.ClassPCA", self)

    def fit(self, images: TrainingImages, features: Features | None = None) -> Fitted:
        return {
            f"{name}.{label}": value.contiguous()
            for label in range(images.classes)
            for name, value in vars(find_components(images.of(label), self.variance)).items()
        }

    def draw(
        self, label: int, number: Labels, noise: CountedNoise, images: TrainingImages, fit: Fitted
    ) -> Points:
        names = ("mean", "vectors", "deviations")
        part = PrincipalComponents(*(fit[f"{name}.{label}"] for name in names))
        return part.draw(images.of(label), noise.normal(START_DRAW, len(part.vectors)), self.scale)


@dataclass(frozen=True)
class LocalPCA(Start):
    """Normal distribution of a random image of the class and its nearest neighbours in the class.

    Our interpretation of "local class-wise PCA" in the abstract of arXiv 2505.22486: each sample
    draws an anchor image; components are those of the anchor and its ``k`` nearest neighbours.

    Attributes:
        k: Number of neighbours of an anchor, >= 1.
        by: Distance between ``"features"`` of the robust network, between ``"pixels"``, or between
            ``"low_frequencies"``: means of 4 x 4 pixels.
        variance: Share of the variance that is kept, in (0, 1].
        scale: Factor of the standard deviations, >= 0.
    """

    k: int = 20
    by: str = "features"
    variance: float = 0.99
    scale: float = 1.0

    def __post_init__(self) -> None:
        require_ranges("sampling.LocalPCA", self)
        require_ranges("sampling.ClassPCA", self)

    @property
    def needs_features(self) -> bool:
        return self.by == "features"

    def require(self, images: TrainingImages, n: int) -> None:
        for label in range(images.classes):
            others = len(images.places(label)) - 1
            if self.k > others:
                most = f"at most {others}, the number of other images of class {label}"
                raise ArgumentError("k", self.k, most)

    def fit(self, images: TrainingImages, features: Features | None = None) -> Fitted:
        """Neighbours of each image, as indices within its class, nearest first."""
        self.require(images, 0)
        neighbours = torch.full((len(images.labels), self.k), -1, dtype=torch.int32)
        for label in range(images.classes):
            places = images.places(label)
            rows = self._compared(images, label, features)
            neighbours[places.cpu()] = _nearest(rows, self.k).cpu()
        return {"neighbours": neighbours}

    def _compared(
        self, images: TrainingImages, label: int, features: Features | None
    ) -> Float[Tensor, "of_class entries"]:
        """What distances are measured between, for each image of the class."""
        if self.by == "features":
            assert features is not None
            return features[images.places(label)]
        rows = images.of(label)
        if self.by == "pixels":
            return rows
        square = rows.reshape(-1, *images.pixels.shape[1:])
        return F.avg_pool2d(square, 4, ceil_mode=True).flatten(1)

    def draw(
        self, label: int, number: Labels, noise: CountedNoise, images: TrainingImages, fit: Fitted
    ) -> Points:
        places = images.places(label)
        share = noise.uniform(ANCHOR_DRAW, 1)[:, 0]
        anchors = places[(share * len(places)).long()]
        around = places[fit["neighbours"][anchors.to(fit["neighbours"].device)].to(places)]
        chosen = torch.cat([anchors[:, None], around], 1)
        points = as_rows(images.pixels[chosen.flatten()]).reshape(*chosen.shape, -1)
        return self._draw_around(points, noise.normal(START_DRAW, self.k + 1))

    def _draw_around(
        self, points: Float[Tensor, "batch near pixels"], z: Float[Tensor, "batch near"]
    ) -> Points:
        """``PrincipalComponents.draw`` in its dual form, for a batch of neighbourhoods."""
        mean = points.mean(1, keepdim=True)
        centred = points - mean
        values, vectors = torch.linalg.eigh((centred @ centred.mT).double())
        keep = _keep_mask(values.flip(1).clamp_min(0), self.variance).flip(1)
        along = (vectors.mT @ z.double()[:, :, None]) * keep[:, :, None]
        weights = (vectors @ along / self.k**0.5).to(points)
        drawn: Tensor = mean + self.scale * weights.mT @ centred
        return drawn[:, 0]


def _nearest(rows: Float[Tensor, "images entries"], k: int) -> Tensor:
    """Indices of the ``k`` nearest other rows, nearest first; ties keep their order."""
    nearest = []
    for first in range(0, len(rows), 1024):
        distances = torch.cdist(rows[first : first + 1024], rows)
        own = torch.arange(len(distances), device=rows.device)
        distances[own, own + first] = torch.inf
        nearest.append(distances.sort(stable=True, dim=1).indices[:, :k])
    return torch.cat(nearest).to(torch.int32)
