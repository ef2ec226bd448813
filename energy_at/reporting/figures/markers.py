"""Marks at the upper edge of a panel: when the sentinel raised an alarm, when robustness was lost.

Everything is marked; of marks that are close to each other only the first has a label.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from energy_at.runs.metrics_log import MetricsLog

ALARM = "0.25"  # a triangle that is no curve
APART = 0.08  # of the width of a panel, from one label to the next
LANE = 13  # points between alarms of different kinds


@dataclass(frozen=True)
class Mark:
    """``CO`` or ``RO``, where on the horizontal axis, and the colour of the run."""

    kind: str
    where: float
    color: str = ALARM


def alarms_of(log: MetricsLog, *, by_epoch: bool = True, color: str = ALARM) -> list[Mark]:
    """Alarms of the sentinel in a run, for a panel that counts epochs, or else optimizer steps."""
    alarms = log.alarms
    unit = log.steps_per_epoch if by_epoch and alarms else 1.0
    return [Mark(kind, step / unit, color) for kind, step in alarms]


def mark_alarms(axes: Axes, alarms: Sequence[Mark]) -> None:
    """A triangle for each alarm, each kind in a lane of its own; after the curves are drawn."""
    for lane, kind in enumerate(sorted({mark.kind for mark in alarms})):
        for mark, label in labelled(axes, [mark for mark in alarms if mark.kind == kind]):
            axes.annotate(
                f"{label}\n\N{BLACK DOWN-POINTING TRIANGLE}", (mark.where, 1.0), color=mark.color,
                xycoords=("data", "axes fraction"), xytext=(0, -1 - LANE * lane),
                textcoords="offset points", ha="center", va="top", fontsize="xx-small",
                linespacing=0.9, annotation_clip=False,
            )  # fmt: skip


def labelled(axes: Axes, marks: Sequence[Mark]) -> Iterator[tuple[Mark, str]]:
    """Marks from left to right, each with its kind as its label where there is room for one."""
    apart = APART * float(np.diff(axes.get_xlim())[0])
    last = -np.inf
    for mark in sorted(marks, key=lambda mark: mark.where):
        free = mark.where - last > apart
        last = mark.where if free else last
        yield mark, mark.kind if free else ""
