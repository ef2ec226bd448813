"""Signals of a loss of robustness, each invariant to the scale of images and energies."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields
from math import inf
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from energy_at.overfitting.alarms import Alarm, Kind, Row

Floats = NDArray[np.float64]

WINDOW = 5  # validations of a running mean
CLEAR = 1.5  # hysteresis: factor between a threshold and a clear value
LEARNED = 1.5  # times chance: least accuracy of a network with robustness to lose


def aae_share_and_alignment(row: Row) -> tuple[float, float]:
    """AAE share and alignment of a training step, invariant to the scale of images and energies.

    The share of examples whose loss the attack lowered is 0 for an attack that works, 1/2 for a
    perturbation that is independent of the loss. The alignment is the cosine between the shift
    ``[dE(x), dE(x, y)]`` and ``[1, -1]``, the direction of rising loss: 1/sqrt(2) for an attack
    that moves E(x, y) alone, 0 for an independent perturbation, and 1 without a shift.
    """
    loss_rise = row["train/delta_energy/marginal"] - row["train/delta_energy/joint"]
    shift = row["train/delta_energy/shift_norm"]
    return row["train/aae_share"], loss_rise / (2**0.5 * shift) if shift > 0 else 1.0


def divergence(marginal: float, shift: float, steps: Sequence[Sequence[float]]) -> float:
    """Divergence of dE(x) on held-out from dE(x) on training images, from -1 to 1.

    ``marginal`` and ``shift``, in nats, are the mean dE(x) and shift norm of held-out images;
    ``steps`` holds both of recent training steps, whose medians count.
    """
    trained, trained_shift = np.median(np.array(steps), axis=0)
    total = shift + float(trained_shift)
    return (marginal - float(trained)) / total if total > 0 else 0.0


def standard_error(accuracy: float, images: int | None) -> float:
    """Standard error of the difference of two running means of an accuracy.

    Binomial, as if each validation had other images: an upper bound, since all have the same, most
    of which are always or never correct. Infinite if the number of images is unknown.
    """
    if images is None:
        return inf
    return float((accuracy * (1 - accuracy) / images * 2 / WINDOW) ** 0.5)


def has_learned(accuracy: float, classes: int) -> bool:
    return accuracy >= LEARNED / classes


def running_means(accuracies: Floats) -> Floats:
    """Mean of each ``WINDOW`` neighbouring validations; the first is that of the first window."""
    return np.convolve(accuracies, np.full(WINDOW, 1 / WINDOW), "valid")


@dataclass
class Stateful:
    """A dataclass whose state is every field that its constructor does not take."""

    def state_dict(self) -> dict[str, Any]:
        return {
            name: value.state_dict() if isinstance(value, Stateful) else deepcopy(value)
            for name, value in self._state().items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in self._state().items():
            if isinstance(value, Stateful):
                value.load_state_dict(state[name])
            else:
                setattr(self, name, deepcopy(state[name]))

    def _state(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.init}


@dataclass
class Signal(Stateful):
    """A value with a threshold and hysteresis.

    The signal is on from the first row that crosses the threshold until ``recovery`` consecutive
    rows are clear: on its other side by a factor of ``CLEAR``. A value that hovers at its threshold
    is one loss of robustness, not many.
    """

    kind: Kind
    name: str  # a key of BY_SIGNAL
    recovery: int  # consecutive clear rows after which it is off
    below: bool = False  # whether it crosses its threshold downward
    held_out: bool = True  # whether it is measured on held-out images; else in training steps
    value: float = field(init=False, default=0.0)
    threshold: float = field(init=False, default=0.0)
    crossings: int = field(init=False, default=0)  # consecutive rows, up to the last one
    clear_rows: int = field(init=False, default=0)  # consecutive rows, up to the last one
    on: bool = field(init=False, default=False)

    def update(
        self, value: float, threshold: float, *, given: bool = True, clear: bool = False
    ) -> None:
        """Takes the next row.

        Args:
            value: Of the signal.
            threshold: Of the signal.
            given: Whether everything else that the signal requires holds.
            clear: Whether the row is clear whatever the value.
        """
        crossed, is_clear = value >= threshold, value <= threshold / CLEAR
        if self.below:
            crossed, is_clear = value < threshold, value >= CLEAR * threshold
        self.value, self.threshold = value, threshold
        self.crossings = self.crossings + 1 if crossed and given else 0
        self.clear_rows = self.clear_rows + 1 if is_clear or clear else 0
        self.on = self.crossings > 0 or (self.on and not self.has_recovered)

    @property
    def has_recovered(self) -> bool:
        """Whether enough consecutive rows were clear."""
        return self.clear_rows >= self.recovery

    def alarm(self, step: float) -> Alarm:
        return Alarm(self.kind, int(step), self.name, self.value, self.threshold, self.held_out)


@dataclass
class RunningMean(Stateful):
    """Mean over the last ``WINDOW`` validations, and its best so far."""

    lowest: bool = False  # whether the lowest mean is the best one; else the highest
    values: list[float] = field(init=False, default_factory=list)  # of the mean, and one before
    best: float = field(init=False)

    def __post_init__(self) -> None:
        self.best = inf if self.lowest else 0.0

    def update(self, value: float) -> None:
        self.values = [*self.values, value][-WINDOW - 1 :]
        self.best = (min if self.lowest else max)(self.best, self.current)

    @property
    def current(self) -> float:
        """The mean; the best one while there are too few validations."""
        return fmean(self.values[-WINDOW:]) if len(self.values) >= WINDOW else self.best

    @property
    def extrapolated(self) -> float:
        """The next mean at the current rate; the best one while the rate is unknown."""
        if len(self.values) <= WINDOW:
            return self.best
        return 2 * self.current - fmean(self.values[:-1])

    @property
    def relative_rise(self) -> float:
        """Rise of the mean above the best one, relative to it; 0 while there is no mean."""
        return self.current / self.best - 1 if 0 < self.best < inf else 0.0
