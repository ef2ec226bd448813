"""Columns with one entry for each image; energies in nats."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Truths = NDArray[np.bool_]

TIMES = tuple(i / 20 for i in range(31))  # along a path: x at 0, x* at 1, and half as far again


@dataclass(frozen=True)
class Natural:
    """The images as they are.

    Attributes:
        image: Place in the split that it was taken from.
        label: True class.
        prediction: Class of the highest logit.
        marginal: ``E(x)``.
        joint: ``E(x, y)``.
    """

    image: Integers
    label: Integers
    prediction: Integers
    marginal: Floats
    joint: Floats


@dataclass(frozen=True)
class Shifts:
    """What one attack makes of the same images.

    Attributes:
        prediction: Class of the highest logit at ``x*``.
        marginal: ``E(x*)``.
        joint: ``E(x*, y)``.
        delta_marginal: ``dE(x) = E(x) - E(x*)``.
        delta_joint: ``dE(x, y) = E(x, y) - E(x*, y)``.
        shift_norm: ``||[dE(x), dE(x, y)]||_2``.
        is_abnormal: Whether the attack lowered the loss (AAE).
        size: ``|x* - x|`` in the norm of the threat model, in units of the pixel range.
    """

    prediction: Integers
    marginal: Floats
    joint: Floats
    delta_marginal: Floats
    delta_joint: Floats
    shift_norm: Floats
    is_abnormal: Truths
    size: Floats


@dataclass(frozen=True)
class Paths:
    """Energies on the straight line from ``x`` through ``x*``, clamped to pixels.

    Attributes:
        positions: Which of the images, by their entry in ``Natural``.
        marginal: ``E(x_t)``, a row for each image, a column for each of ``TIMES``.
        joint: ``E(x_t, y)``.
    """

    positions: Integers
    marginal: Floats
    joint: Floats


@dataclass(frozen=True)
class Radii:
    """Delta energies against the radius of the ball.

    Attributes:
        positions: Which of the images, by their entry in ``Natural``.
        eps: Radii, in units of the pixel range.
        delta_marginal: ``dE(x)``, a row for each image, a column for each radius.
        delta_joint: ``dE(x, y)``.
    """

    positions: Integers
    eps: Floats
    delta_marginal: Floats
    delta_joint: Floats


@dataclass(frozen=True)
class Landscape:
    """Energies of a network around images; shifts and paths by the name of the attack."""

    natural: Natural
    attacks: Mapping[str, Shifts]
    paths: Mapping[str, Paths]
    radii: Radii
