"""The alarm of the sentinel, its thresholds, and its columns of ``metrics.csv``."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from energy_at.core.ranges import require_ranges

Kind = Literal["CO", "RO"]
Row = Mapping[str, float]  # of metrics.csv
Rows = Sequence[Row]

PGD_ACCURACY, PGD_LOSS = "val/acc/pgd10", "val/ce/pgd10"  # columns of the usual validation
ALARMS: dict[Kind, str] = {"CO": "alarm/co", "RO": "alarm/ro"}  # columns: 1 at an alarm
AAE_SHARE = "AAE share"
PERT_ALIGN = "PertAlign"
RATIO = "PGD/FGSM accuracy ratio on held-out images"
DIVERGENCE = "divergence of dE(x) on held-out from dE(x) on training images"
DROP = "PGD accuracy drop on held-out images, extrapolated to the next validation"
RISE = "relative rise of the PGD cross-entropy on held-out images"
BY_SIGNAL = {  # columns of the values that crossed their thresholds
    AAE_SHARE: "alarm/by/aae_share",
    PERT_ALIGN: "alarm/by/pert_align",
    RATIO: "alarm/by/ratio",
    DIVERGENCE: "alarm/by/divergence",
    DROP: "alarm/by/drop",
    RISE: "alarm/by/rise",
}
BY_HELD_OUT = "alarm/held_out"  # 1 if held-out images raised the alarm, 0 if training steps did
ROLLBACK = "alarm/rollback"  # step of the state that a rollback restored
REPEATED = "alarm/repeated"  # epochs by which rollbacks have extended the training so far
_STEPS = re.compile(r"(?<=pgd)\d+(x\d+)?$")  # and restarts, as in pgd50x10


def find_column(columns: Collection[str], name: str) -> str:
    """``name``, or the column of the same attack with other steps; ``name`` if there is neither."""
    same = (other for other in columns if _STEPS.sub("", other) == _STEPS.sub("", name))
    return name if name in columns else next(same, name)


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the signals.

    Attributes:
        window: Optimizer steps of the means of the CO signal.
        aae_share: CO: least share of abnormal examples.
        alignment: CO: and largest cosine between the shift of the energies and the direction of
            rising loss.
        pert_align: CO: or mean PertAlign below this; ``None`` switches it off.
        ratio: CO on held-out images: the PGD/FGSM accuracy ratio falls below this part of its best.
        divergence: RO: least dE(x) of held-out minus dE(x) of training images, over the sum of
            their shift norms.
        drop: RO: or half of that divergence, and least drop of PGD accuracy on held-out images
            below its best: of a running mean, extrapolated to the next validation. At least two
            standard errors of the difference of two such means.
        rise: RO: or any divergence, PGD accuracy one standard error below its best, and least
            relative rise of the PGD cross-entropy above its best; both are running means.
        patience: RO: consecutive validations of divergence without a new best. An alarm of
            held-out images ends after as many whose signal is clear (hysteresis).
        recovery: Consecutive clear steps (hysteresis) after which an alarm of CO ends.

    Raises:
        ValueError: if no signal can cross a threshold, or noise would.
    """

    window: int = 20
    aae_share: float = 0.25
    alignment: float = 0.2
    pert_align: float | None = None
    ratio: float = 0.4
    divergence: float = 0.1
    drop: float = 0.03
    rise: float = 0.1
    patience: int = 2
    recovery: int = 100

    def __post_init__(self) -> None:
        require_ranges("overfitting.Thresholds", self)


@dataclass(frozen=True)
class Alarm:
    """An onset of catastrophic (CO) or robust overfitting (RO).

    Attributes:
        step: Optimizer step of the row that raised it.
        signal: What crossed its threshold: a key of ``BY_SIGNAL``.
        held_out: Whether held-out images raised it; else training steps did.
    """

    kind: Kind
    step: int
    signal: str
    value: float
    threshold: float
    held_out: bool = False

    def row(self) -> dict[str, float]:
        """Cells of ``metrics.csv``: 1 by kind, the value by signal, and its source."""
        kind, signal = ALARMS[self.kind], BY_SIGNAL[self.signal]
        return {kind: 1.0, signal: self.value, BY_HELD_OUT: float(self.held_out)}

    def __str__(self) -> str:
        return (
            f"{self.kind} alarm at step {self.step}: {self.signal} is {self.value:.3g}, "
            f"threshold {self.threshold:.3g}"
        )
