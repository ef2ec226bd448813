"""Principal components of images, from whichever of the two matrices is smaller.

With centred images ``X`` (n, d), the covariance ``X^T X / (n - 1)`` and the Gram matrix ``X X^T``
share their eigenvalues, and an eigenvector ``p`` of the latter gives the direction
``X^T p / |X^T p|``. Few images of many pixels are kept as ``p``, which is small.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from energy_at.core.rules import number, require

Points = Float[Tensor, "images pixels"]


@dataclass(frozen=True)
class Principal:
    """Mean and principal components of a set of points.

    Attributes:
        mean: Of the points.
        vectors: Orthonormal columns: directions in pixels, or weights of the points if ``dual``.
        deviations: Standard deviations along the directions, largest first.
        dual: Whether the columns are weights of the points.
    """

    mean: Float[Tensor, " pixels"]
    vectors: Float[Tensor, "entries components"]
    deviations: Float[Tensor, " components"]
    dual: bool

    def directions(self, points: Points) -> Float[Tensor, "components pixels"]:
        """Unit directions in pixels, given the points that the components were found of."""
        if not self.dual:
            return self.vectors.T
        spread = (points - self.mean).T @ self.vectors
        directions: Tensor = (spread / torch.linalg.vector_norm(spread, dim=0).clamp_min(1e-30)).T
        return directions

    def drawn(
        self, points: Points, z: Float[Tensor, "batch entries"], scale: float
    ) -> Float[Tensor, "batch pixels"]:
        """Points of the normal distribution with this mean and these components.

        ``z`` is projected onto the components instead of being drawn for each of them: the same
        distribution, and no sign or order of the components can change a draw.

        Args:
            points: That the components were found of.
            z: N(0, 1), as many as the columns have entries.
            scale: Standard deviations are multiplied by it.
        """
        along = z @ self.vectors
        if not self.dual:
            return self.mean + scale * (along * self.deviations) @ self.vectors.T
        weights = along @ self.vectors.T / max(len(points) - 1, 1) ** 0.5
        drawn: Tensor = self.mean + scale * weights @ (points - self.mean)
        return drawn


def principal(points: Points, variance: float = 1.0) -> Principal:
    """Components that together hold the share ``variance`` of the variance, as few as suffice.

    Raises:
        ValueError: if ``variance`` is outside (0, 1], or there are no points.
    """
    require("variance", variance, number(0, 1, above=True))
    if not len(points):
        raise ValueError("no images to find principal components of")
    mean = points.mean(0)
    centred = (points - mean).double()
    dual = len(points) <= points.shape[1]
    matrix = centred @ centred.T if dual else centred.T @ centred
    values, vectors = torch.linalg.eigh(matrix)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    count = int(kept(values, variance).sum())
    deviations = (values[:count] / max(len(points) - 1, 1)).sqrt()
    kind = points.dtype
    return Principal(mean, vectors[:, :count].to(kind), deviations.to(kind), dual)


def kept(
    values: Float[Tensor, "*batch components"], variance: float
) -> Float[Tensor, "*batch components"]:
    """1 for the components to keep, 0 for the others; values are sorted, largest first.

    What is below the precision of the largest is none: centred images have one direction less.
    """
    total = values.sum(-1, keepdim=True)
    before = values.cumsum(-1) - values
    real = values > 1e-10 * values.amax(-1, keepdim=True)
    return ((before < variance * total * (1 - 1e-12)) & real).to(values)
