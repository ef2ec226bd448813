"""When a training begins to lose its robustness, read step by step from what it logs anyway.

Catastrophic overfitting (CO) shows in the attack of the training itself. Both signs of a step are
free of the scale of images and energies:

- the share of abnormal examples, whose loss the attack *lowered*: 0 under an attack that works,
  1/2 under a perturbation that knows nothing of the loss;
- the alignment of the shift ``[dE(x), dE(x, y)]`` with ``[1, -1]``, the direction in which the
  loss rises, as a cosine: ``(dE(x) - dE(x, y)) / (sqrt(2) ||shift||)``, 1/sqrt(2) where the attack
  moves E(x, y) alone, 0 where it knows nothing of the loss.

Neither will do alone: confident examples, of which there are many late in a sound training, are
shifted along ``[1, 1]``, which lowers the alignment, or are abnormal by a hair. An alarm is raised
once the means of both over the last steps say so; they are bounded, so that no single step can.
Late in a sound training with a noisy attack both come close to those of a blind one. So where
held-out images have just shown a robust network, the signs that it has are its scale: an alarm
needs half the way from there to blindness. On held-out images themselves CO shows as PGD
accuracy that breaks away from FGSM accuracy, or that stays far below it from the beginning.

Robust overfitting (RO) cannot be told from learning by training images alone. It shows where dE(x)
parts: the attack raises the energy of ``x*`` on training images and lowers it on held-out ones.
Where dE(x) has parted by half as much, a running mean of the PGD accuracy on held-out images that
falls is a sign too: an alarm comes once it will have lost three points by the next validation. And
where dE(x) has parted at all and the accuracy is a standard error below its best, so is a running
mean of their cross-entropy under PGD that has risen by a tenth: three weak signs at once.

A signal that hovers at its threshold is one loss of robustness, not many: an alarm ends once its
signal has been clear of the threshold, by half of it, for a while, and only then may come another.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any

from energy_at.overfitting.alarms import AAE_SHARE, FALL, PARTING, RATIO, RISE, Alarm, Thresholds
from energy_at.overfitting.signals import Decline, Rise, parting, signs_of

Row = Mapping[str, float]

_STEP = (
    "train/delta_energy/marginal",
    "train/delta_energy/joint",
    "train/delta_energy/shift_norm",
    "train/aae_share",
    "train/acc/adv",
)
_LEARNED = 1.5  # times chance: below it there is no robustness to lose
_BLIND = 0.5  # AAE share of a perturbation that knows nothing of the loss; its alignment is 0
_ROBUST = 0.5  # PGD over FGSM accuracy: a network with less has never been robust, or is no more
_WEAK, _WEAK_FOR = 1 / 3, 5  # below it in so many validations in a row: it never gets robust
_CLEAR = 1.5  # times a threshold, or one part in so many: far enough from it to be sound again


@dataclass
class Detector:
    """Sees the rows of ``metrics.csv`` one after the other, in training or from the file.

    What it says depends on the rows alone, not on when they arrive.

    Args:
        thresholds: Of its signs.
        classes: Of the data set.
        climbs_loss: Whether the training attack raises the cross-entropy. Under one that does not,
            such as that of TRADES, the steps cannot tell CO, and are not asked.
        images: Held-out images of a validation; ``None``, not known: their accuracy is no sign.
    """

    thresholds: Thresholds
    classes: int
    climbs_loss: bool = True
    images: int | None = None
    _steps: deque[list[float]] = field(default_factory=deque)  # dE(x), shift norm, signs
    _best_pgd: float = 0.0
    _best_ratio: float = 0.0
    _decline: Decline = field(default_factory=Decline)  # of PGD accuracy
    _rise: Rise = field(default_factory=Rise)  # of the cross-entropy under PGD
    _apart_now: bool = False
    _parted: int = 0  # validations in a row
    _sound: tuple[float, float] | None = None  # signs that held-out images vouch for
    robust: bool = False  # on held-out images, at the last validation
    _clear: Counter[str] = field(default_factory=Counter)  # rows in a row, by signal
    _raised: set[str] = field(default_factory=set)

    def see(self, row: Row) -> Alarm | None:
        """The alarm that a row raises; a kind raises none again before its last has ended."""
        if all(name in row for name in _STEP):
            return self._step(row)
        if "val/acc/pgd" in row:
            return self._validation(row)
        return None

    @property
    def calm(self) -> bool:
        """Whether there is no sign of a loss of robustness: a state to come back to."""
        signs = self._apart_now or self._parted > 0 or self._fails(self.thresholds.window)
        return not self._raised and not signs and not self._fails(self.thresholds.window // 4)

    def reset(self) -> None:
        """Forgets the steps, not what the network has reached: it goes on from an older state."""
        self._steps.clear()
        self._decline.accuracies, self._rise.losses = [], []
        self._apart_now, self._parted = False, 0
        self._sound = None
        self.robust = False
        self._clear.clear()
        self._raised.clear()

    def state_dict(self) -> dict[str, Any]:
        """Everything that it remembers, as plain values."""
        return {
            "steps": [list(step) for step in self._steps],
            "best_pgd": self._best_pgd,
            "best_ratio": self._best_ratio,
            "decline": asdict(self._decline),
            "rise": asdict(self._rise),
            "apart_now": self._apart_now,
            "parted": self._parted,
            "clear": dict(self._clear),
            "sound": self._sound and list(self._sound),
            "raised": sorted(self._raised),
            "robust": self.robust,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remembers that instead."""
        self._steps = deque([list(step) for step in state["steps"]])
        self._best_pgd, self._best_ratio = float(state["best_pgd"]), float(state["best_ratio"])
        self._decline = Decline(**state.get("decline", {}))  # checkpoints were made before it was
        self._rise = Rise(**state.get("rise", {}))  # likewise
        self._apart_now = bool(state["apart_now"])
        self._parted = int(state["parted"])
        self._clear = Counter(state.get("clear", {}))  # likewise
        sound = state.get("sound")
        self._sound = (float(sound[0]), float(sound[1])) if sound else None
        self._raised = set(state["raised"])
        self.robust = bool(state.get("robust", False))

    def _step(self, row: Row) -> Alarm | None:
        window = self.thresholds.window
        shift = row["train/delta_energy/shift_norm"]
        signs = [*signs_of(row), row["train/acc/adv"]]
        self._steps.append([row["train/delta_energy/marginal"], shift, *signs])
        if len(self._steps) > window:
            self._steps.popleft()
        fails = len(self._steps) == window and self._fails(window)
        self._count("steps", not fails and self._works(window))
        if fails:
            share, limit = self._means(window)[0], self._limits()[0]
            return self._raise(Alarm("CO", int(row["step"]), AAE_SHARE, share, limit))
        self._end_collapse()
        return None

    def _end_collapse(self) -> None:
        """Ends an alarm of CO once neither steps nor held-out images are near it any more."""
        recovered = not self._steps or self._clear["steps"] >= self.thresholds.recovery
        if recovered and not self._apart_now:
            self._raised.discard("CO")

    def _fails(self, last: int) -> bool:
        """Whether the training attack has failed, by the means over the last steps."""
        if not self._steps or not self.climbs_loss:
            return False
        share, alignment, accuracy = self._means(last)
        most, least = self._limits()
        return share >= most and alignment <= least and self._learned(accuracy)

    def _works(self, last: int) -> bool:
        """Whether it clearly works, which is more than not to have failed."""
        share, alignment, _ = self._means(last)
        most, least = self._limits()
        works = share <= most / _CLEAR or alignment >= _CLEAR * least
        return works or not self.climbs_loss

    def _limits(self) -> tuple[float, float]:
        """AAE share and alignment of an alarm.

        From signs that held-out images vouch for, the share has to go as far towards that of a
        blind attack as it otherwise has from 0, and the alignment down to half.
        """
        limits = self.thresholds
        if self._sound is None:
            return limits.aae_share, limits.alignment
        share, alignment = self._sound
        if share >= _BLIND or alignment <= 0:
            return inf, -inf  # robust, and as if blind: the steps have nothing left to tell
        most = share + limits.aae_share * (1 - share / _BLIND)
        return most, min(limits.alignment, alignment / 2)

    def _vouch(self, robust: bool) -> None:
        """Takes the signs of now for sound if held-out images show a robust network."""
        known = robust and len(self._steps) == self.thresholds.window
        self._sound = self._means(self.thresholds.window)[:2] if known else None

    def _count(self, signal: str, clear: bool) -> int:
        """Rows in a row, this one included, in which a signal was clear of its threshold."""
        self._clear[signal] = self._clear[signal] + 1 if clear else 0
        return self._clear[signal]

    def _means(self, last: int) -> tuple[float, float, float]:
        """AAE share, alignment, and accuracy under the attack."""
        steps = list(self._steps)[-last:]
        share, alignment, accuracy = (sum(s[i] for s in steps) / len(steps) for i in (2, 3, 4))
        return share, alignment, accuracy

    def _validation(self, row: Row) -> Alarm | None:
        improved = row["val/acc/pgd"] > self._best_pgd
        self._best_pgd = max(self._best_pgd, row["val/acc/pgd"])
        self._decline.see(row["val/acc/pgd"])
        if "val/ce/pgd" in row:  # older logs have none
            self._rise.see(row["val/ce/pgd"])
        return self._apart(row) or self._overfits(row, improved)

    def _apart(self, row: Row) -> Alarm | None:
        """CO: against the iterative attack the network is lost, against a single step it is not."""
        pgd, fgsm = row["val/acc/pgd"], row.get("val/acc/fgsm", 0.0)
        self.robust = False
        if fgsm <= 0:
            return None
        ratio = min(pgd / fgsm, 1.0)  # above it few images, or too weak an attack, say nothing
        if self._learned(pgd):
            self._best_ratio = max(self._best_ratio, ratio)
        limit = self.thresholds.gap * self._best_ratio
        if self._count("weak", self._learned(fgsm) and ratio < _WEAK) >= _WEAK_FOR:
            limit = max(limit, _WEAK)
        together = self._count("held-out", ratio >= _CLEAR * limit)
        self._vouch(self._learned(pgd) and together > 0)
        self.robust = self._learned(pgd) and together > 0 and ratio >= _ROBUST
        if ratio >= limit:
            self._apart_now &= together < self.thresholds.patience
            self._end_collapse()
            return None
        self._apart_now = True
        return self._raise(Alarm("CO", int(row["step"]), RATIO, ratio, limit, held_out=True))

    def _overfits(self, row: Row, improved: bool) -> Alarm | None:
        """RO: dE(x) of held-out and training images has parted, or less and there are others."""
        needed = ("val/delta_energy/marginal", "val/delta_energy/shift_norm")
        if "CO" in self._raised or not self._steps or not all(name in row for name in needed):
            return None
        apart = parting(row[needed[0]], row[needed[1]], [step[:2] for step in self._steps])
        parted, patience = self.thresholds.parting, self.thresholds.patience
        worse = not improved and self._learned(self._best_pgd)
        self._parted = self._parted + 1 if worse and apart >= parted else 0
        seconds = self._second_signs()
        steady = all(value <= most / _CLEAR or apart <= a / _CLEAR for _, value, most, a in seconds)
        if self._count("parting", steady and apart <= parted / _CLEAR) >= patience:
            self._raised.discard("RO")
        step = int(row["step"])
        if self._parted >= patience:
            return self._raise(Alarm("RO", step, PARTING, apart, parted, held_out=True))
        for signal, value, most, least in seconds:
            if worse and apart >= least and apart > 0 and value >= most:
                return self._raise(Alarm("RO", step, signal, value, most, held_out=True))
        return None

    def _second_signs(self) -> list[tuple[str, float, float, float]]:
        """Signal, value, threshold, and how far dE(x) must have parted, at least above 0."""
        lost, limit = self._decline.by_next, self._decline.limit(self.thresholds.fall, self.images)
        falls = self._decline.lost >= self._decline.error(self.images)
        return [
            (FALL, lost, limit, self.thresholds.parting / 2),
            (RISE, self._rise.share if falls else 0.0, self.thresholds.rise, 0.0),
        ]

    def _learned(self, accuracy: float) -> bool:
        return accuracy >= _LEARNED / self.classes

    def _raise(self, alarm: Alarm) -> Alarm | None:
        if alarm.kind in self._raised:
            return None
        self._raised.add(alarm.kind)
        return alarm
