"""Detects the onset of catastrophic and robust overfitting from the rows that a training logs.

docs/sentinel.md lists the signals. Catastrophic overfitting (CO) shows in the AAE share and the
alignment of the training attack, by their means over recent steps: confident examples of a healthy
training are shifted along ``[1, 1]``, or are abnormal by a small margin. While held-out images show
a robust network, half the way from its own values to a failing attack is required. On held-out
images CO shows as PGD accuracy that falls far below FGSM accuracy, or stays there.

Robust overfitting (RO) shows on held-out images, as divergence of dE(x): the attack raises the
energy of ``x*`` on training images and lowers it on held-out ones. With half of that divergence, a
PGD accuracy that falls is a signal too; with any divergence and a drop of one standard error, so is
a PGD cross-entropy that rises.
"""

from dataclasses import InitVar, dataclass, field, replace
from math import inf, isnan, nan
from statistics import fmean

from energy_at.overfitting import alarms, signals
from energy_at.overfitting.alarms import PGD_ACCURACY, PGD_LOSS, Alarm, Row, Thresholds, find_column
from energy_at.overfitting.signals import CLEAR, RunningMean, Signal, Stateful, has_learned

_STEP = (
    "train/delta_energy/marginal",
    "train/delta_energy/joint",
    "train/delta_energy/shift_norm",
    "train/aae_share",
    "train/acc/adv",
)
_FAILING = 0.5  # AAE share of a perturbation that is independent of the loss; its alignment is 0
_ROBUST = 0.5  # least PGD/FGSM accuracy ratio of a robust network
_WEAK, _WEAK_FOR = 1 / 3, 5  # consecutive validations with a ratio below it: never robust
_ERRORS = 2  # standard errors below which a drop of the accuracy is chance


@dataclass
class CatastrophicOverfitting(Stateful):
    """Detects CO from training steps and from held-out images."""

    thresholds: Thresholds
    classes: int
    climbs_loss: bool = True
    steps: list[list[float]] = field(init=False, default_factory=list)  # share, alignment, accuracy
    confirmed: list[float] | None = field(init=False, default=None)  # both of a robust network
    best_ratio: float = field(init=False, default=0.0)
    weak: int = field(init=False, default=0)  # consecutive validations
    is_robust: bool = field(init=False, default=False)  # on held-out images, at the last validation
    active: bool = field(init=False, default=False)  # an alarm has not ended
    pert_aligns: list[float] = field(init=False, default_factory=list)  # of the same steps
    failure: Signal = field(init=False)
    pert_align: Signal = field(init=False)
    ratio: Signal = field(init=False)

    def __post_init__(self) -> None:
        limits = self.thresholds
        self.failure = Signal("CO", alarms.AAE_SHARE, limits.recovery, held_out=False)
        self.pert_align = Signal(
            "CO", alarms.PERT_ALIGN, limits.recovery, below=True, held_out=False
        )
        self.ratio = Signal("CO", alarms.RATIO, limits.patience, below=True)

    def take_step(self, row: Row) -> Alarm | None:
        window = self.thresholds.window
        now = [*signals.aae_share_and_alignment(row), row["train/acc/adv"]]
        self.steps = [*self.steps, now][-window:]
        share, alignment, _ = self._means(window)
        most, least = self._limits()
        clear = alignment >= CLEAR * least or not self.climbs_loss
        full = len(self.steps) == window
        self.failure.update(share, most, given=full and self._fails(window), clear=clear)
        self._take_pert_align(row)
        return self._alarm(self.failure if self.failure.crossings else self.pert_align, row)

    def take_validation(self, row: Row) -> Alarm | None:
        pgd, fgsm = row[find_column(row, PGD_ACCURACY)], row.get("val/acc/fgsm", 0.0)
        self.is_robust = False
        if fgsm <= 0:
            return None
        ratio = min(pgd / fgsm, 1.0)  # above 1: few images, or too weak an attack
        if has_learned(pgd, self.classes):
            self.best_ratio = max(self.best_ratio, ratio)
        limit = self.thresholds.ratio * self.best_ratio
        self.weak = self.weak + 1 if has_learned(fgsm, self.classes) and ratio < _WEAK else 0
        self.ratio.update(ratio, max(limit, _WEAK) if self.weak >= _WEAK_FOR else limit)
        healthy = has_learned(pgd, self.classes) and self.ratio.clear_rows > 0
        self.is_robust = healthy and ratio >= _ROBUST
        full = len(self.steps) == self.thresholds.window
        self.confirmed = self._means(self.thresholds.window)[:2] if healthy and full else None
        return self._alarm(self.ratio, row)

    @property
    def has_signal(self) -> bool:
        """Whether anything shows CO, be it not enough for an alarm."""
        window = self.thresholds.window
        fails = self._fails(window) or self._fails(window // 4)
        return self.active or self.ratio.on or self.pert_align.on or fails

    def _alarm(self, signal: Signal, row: Row) -> Alarm | None:
        recovered = not self.steps or self.failure.has_recovered
        starts = signal.crossings > 0 and not self.active
        self.active = signal.crossings > 0 or (
            self.active and not (recovered and not self.ratio.on and not self.pert_align.on)
        )
        return signal.alarm(row["step"]) if starts else None

    def _take_pert_align(self, row: Row) -> None:
        limit, value = self.thresholds.pert_align, row.get("train/pert_align", nan)
        if limit is None or isnan(value):
            return
        window = self.thresholds.window
        self.pert_aligns = [*self.pert_aligns, value][-window:]
        mean = fmean(self.pert_aligns)
        full = len(self.pert_aligns) == window
        given = full and has_learned(self._means(window)[2], self.classes)
        # it is 1 where the loss is linear: a distance from there is clear too
        self.pert_align.update(mean, limit, given=given, clear=1 - mean <= (1 - limit) / CLEAR)

    def _fails(self, last: int) -> bool:
        """Whether the training attack fails, by the means over the last steps."""
        if not self.steps or not self.climbs_loss:
            return False
        share, alignment, accuracy = self._means(last)
        most, least = self._limits()
        return share >= most and alignment <= least and has_learned(accuracy, self.classes)

    def _limits(self) -> tuple[float, float]:
        """Thresholds of AAE share and alignment, given those of a robust network if confirmed."""
        limits = self.thresholds
        if self.confirmed is None:
            return limits.aae_share, limits.alignment
        share, alignment = self.confirmed
        if share >= _FAILING or alignment <= 0:
            return inf, -inf  # a robust network whose steps look like failure: they show nothing
        most = share + limits.aae_share * (1 - share / _FAILING)
        return most, min(limits.alignment, alignment / 2)

    def _means(self, last: int) -> list[float]:
        steps = self.steps[-last:]
        return [sum(step[i] for step in steps) / len(steps) for i in range(3)]


@dataclass
class RobustOverfitting(Stateful):
    """Detects RO from held-out images, compared with training steps."""

    thresholds: Thresholds
    classes: int
    images: int | None = None
    steps: list[list[float]] = field(init=False, default_factory=list)  # dE(x), shift norm
    best_pgd: float = field(init=False, default=0.0)
    accuracy: RunningMean = field(init=False)  # under PGD
    loss: RunningMean = field(init=False)  # cross-entropy under PGD
    active: bool = field(init=False, default=False)  # an alarm has not ended
    divergence: Signal = field(init=False)
    drop: Signal = field(init=False)
    rise: Signal = field(init=False)

    def __post_init__(self) -> None:
        self.accuracy, self.loss = RunningMean(), RunningMean(lowest=True)
        patience = self.thresholds.patience
        self.divergence = Signal("RO", alarms.DIVERGENCE, patience)
        self.drop = Signal("RO", alarms.DROP, patience)
        self.rise = Signal("RO", alarms.RISE, patience)

    def take_step(self, row: Row) -> None:
        now = [row["train/delta_energy/marginal"], row["train/delta_energy/shift_norm"]]
        self.steps = [*self.steps, now][-self.thresholds.window :]

    def take_validation(self, row: Row, *, co_active: bool) -> Alarm | None:
        """Takes a validation; CO that is active hides RO."""
        pgd = row[find_column(row, PGD_ACCURACY)]
        worse = pgd <= self.best_pgd and has_learned(self.best_pgd, self.classes)
        self.best_pgd = max(self.best_pgd, pgd)
        self.accuracy.update(pgd)
        self.loss.update(row[find_column(row, PGD_LOSS)])
        if co_active or not self.steps:
            return None
        self._update(row, worse)
        if all(s.has_recovered for s in (self.divergence, self.drop, self.rise)):
            self.active = False
        needed = (self.divergence, self.thresholds.patience), (self.drop, 1), (self.rise, 1)
        crossed = [signal for signal, rows in needed if signal.crossings >= rows]
        if self.active or not crossed:
            return None
        self.active = True
        return crossed[0].alarm(row["step"])

    @property
    def has_signal(self) -> bool:
        """Whether dE(x) diverges, be it not for long enough, or an alarm has not ended."""
        return self.active or self.divergence.crossings > 0

    def _update(self, row: Row, worse: bool) -> None:
        limits, half = self.thresholds, self.thresholds.divergence / 2
        marginal, shift = row["val/delta_energy/marginal"], row["val/delta_energy/shift_norm"]
        diverged = signals.divergence(marginal, shift, self.steps)
        error = signals.standard_error(self.accuracy.best, self.images)
        self.divergence.update(diverged, limits.divergence, given=worse)
        self.drop.update(
            self.accuracy.best - self.accuracy.extrapolated,
            max(limits.drop, _ERRORS * error),
            given=worse and diverged >= half,
            clear=diverged <= half / CLEAR,
        )
        falls = self.accuracy.best - self.accuracy.current >= error
        rise = self.loss.relative_rise if falls else 0.0
        self.rise.update(rise, limits.rise, given=worse and diverged > 0, clear=diverged <= 0)


@dataclass
class Detector(Stateful):
    """Detects CO and RO from the rows of ``metrics.csv``, in training or from the file.

    Its alarms depend on the rows alone, not on when they arrive.

    Args:
        climbs_loss: Whether the training attack raises the cross-entropy. Steps of one that does
            not, such as that of TRADES, cannot show CO and raise no alarm.
        images: Held-out images of a validation; if ``None``, unknown, a drop of their accuracy is
            no signal.
    """

    thresholds: InitVar[Thresholds]
    classes: InitVar[int]
    climbs_loss: InitVar[bool] = True
    images: InitVar[int | None] = None
    co: CatastrophicOverfitting = field(init=False)
    ro: RobustOverfitting = field(init=False)

    def __post_init__(
        self, thresholds: Thresholds, classes: int, climbs_loss: bool, images: int | None
    ) -> None:
        self.co = CatastrophicOverfitting(thresholds, classes, climbs_loss)
        self.ro = RobustOverfitting(thresholds, classes, images)

    def update(self, row: Row) -> Alarm | None:
        """Takes a row; returns the alarm that it raises.

        A kind of alarm is raised again only after its last one has ended.
        """
        if all(name in row for name in _STEP):
            self.ro.take_step(row)
            return self.co.take_step(row)
        if find_column(row, PGD_ACCURACY) in row:
            alarm = self.co.take_validation(row)
            return self.ro.take_validation(row, co_active=self.co.active) or alarm
        return None

    @property
    def is_healthy(self) -> bool:
        """Whether nothing shows a loss of robustness: a state to restore later."""
        return not self.co.has_signal and not self.ro.has_signal

    @property
    def never_robust(self) -> bool:
        """Whether there were validations, and the PGD accuracy of none exceeded chance."""
        return bool(self.ro.accuracy.values) and not self.co.best_ratio

    def reset(self) -> None:
        """Forgets the steps, but not the best values: the training restores an older state."""
        co, ro = replace(self.co), replace(self.ro)
        co.best_ratio, ro.best_pgd = self.co.best_ratio, self.ro.best_pgd
        ro.accuracy.best, ro.loss.best = self.ro.accuracy.best, self.ro.loss.best
        self.co, self.ro = co, ro
