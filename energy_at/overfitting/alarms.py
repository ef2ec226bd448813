"""The alarm of the sentinel, what raises it, and what ends it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

Kind = Literal["CO", "RO"]
Rows = Sequence[Mapping[str, float]]  # of metrics.csv

ALARMS: dict[Kind, str] = {"CO": "alarm/co", "RO": "alarm/ro"}  # columns

AAE_SHARE = "AAE share"
RATIO = "PGD over FGSM accuracy on held-out images"
PARTING = "dE(x) of held-out less that of training images, over their shift norms"
FALL = "PGD accuracy on held-out images lost by the next validation at this pace"
RISE = "rise of the cross-entropy under PGD on held-out images, as a part of its best"
BY_SIGNAL = {  # columns of the values that crossed their thresholds
    AAE_SHARE: "alarm/by/aae_share",
    RATIO: "alarm/by/pgd_over_fgsm",
    PARTING: "alarm/by/parting",
    FALL: "alarm/by/fall",
    RISE: "alarm/by/rise",
}
BY_HELD_OUT = "alarm/held_out"  # 1 where held-out images raised the alarm, 0 where steps did
ROLLBACK = "alarm/rollback"  # step of the state that the training went back to
REPEATED = "alarm/repeated"  # epochs that the training lasts longer, all rollbacks together
_LEAST = {"window": 4, "patience": 1, "recovery": 1}  # the other thresholds are shares


@dataclass(frozen=True)
class Thresholds:
    """What raises an alarm.

    Attributes:
        window: Optimizer steps whose mean is looked at.
        aae_share: CO: at least this share of abnormal examples, half-way between an attack that
            works and a perturbation that knows nothing of the loss; half-way from the share that
            held-out images vouch for, where that is more.
        alignment: And at most this cosine between the shift of the energies and the rise of the
            loss, or half of that which held-out images vouch for, where that is less.
        gap: CO on held-out images: PGD over FGSM accuracy falls below this part of its best.
        parting: RO: dE(x) of held-out less that of training images, over the sum of their shift
            norms, reaches this.
        fall: RO: or half of that, and at its pace of now the running mean over five validations of
            the PGD accuracy on held-out images will be this far below its best by the next one. It
            is at least two standard errors of the difference of two such means.
        rise: RO: or dE(x) has parted at all, PGD accuracy on held-out images is a standard error
            below its best, and their cross-entropy under PGD is this part above its own; both are
            running means over five validations.
        patience: In so many validations in a row that are not the best so far. As many in a row
            that are clear of the threshold, by half of it, end an alarm of held-out images.
        recovery: An alarm of CO ends after so many optimizer steps in a row whose means are clear
            of either threshold, by half of it.
    """

    window: int = 20
    aae_share: float = 0.25
    alignment: float = 0.2
    gap: float = 0.4
    parting: float = 0.1
    fall: float = 0.03
    rise: float = 0.1
    patience: int = 2
    recovery: int = 100

    def __post_init__(self) -> None:
        """Refuses thresholds that no signal can cross, or that noise would."""
        for rule in fields(self):
            value, low = getattr(self, rule.name), _LEAST.get(rule.name)
            if not (0 < value < 1 if low is None else value >= low):
                must = "> 0 and < 1" if low is None else f">= {low}"
                raise ValueError(
                    f"callbacks.sentinel.thresholds.{rule.name}={value} must be {must}"
                )


@dataclass(frozen=True)
class Alarm:
    """Robustness is being lost.

    Attributes:
        kind: ``CO`` or ``RO``.
        step: Optimizer step at which it was seen.
        signal: What crossed its threshold: a key of ``BY_SIGNAL``.
        value: Of the signal, at this step.
        threshold: Of the signal.
        held_out: Whether held-out images showed it; else the steps of the training did.
    """

    kind: Kind
    step: int
    signal: str
    value: float
    threshold: float
    held_out: bool = False

    def row(self) -> dict[str, float]:
        """Cells of ``metrics.csv``: the value under its kind and its signal, and what showed it."""
        kind, signal = ALARMS[self.kind], BY_SIGNAL[self.signal]
        return {kind: self.value, signal: self.value, BY_HELD_OUT: float(self.held_out)}

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.kind} alarm at step {self.step}: {self.signal} is {self.value:.3g}, "
            f"threshold {self.threshold:.3g}"
        )
