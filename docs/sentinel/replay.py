"""Replays the detector over finished runs and scores its alarms.

``python docs/sentinel/replay.py --out docs/sentinel set=runs/a set=runs/b report=runs/c``

writes ``table.md``, ``table.csv`` and the figure ``signals``. The part of the study that a run
belongs to stands before its folder.
"""

import argparse
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from energy_at.config.build import make
from energy_at.overfitting.alarms import PGD_ACCURACY, Alarm, Thresholds, find_column
from energy_at.overfitting.detector import Detector
from energy_at.overfitting.onset import MARGIN, RunStatus, status_of
from energy_at.overfitting.signals import LEARNED, WINDOW, running_means
from energy_at.reporting.describe import MethodLabel
from energy_at.reporting.figures import OPEN, WIDTH, Mark, mark_alarms, save
from energy_at.reporting.panels import DELTA_X, PGD
from energy_at.reporting.tables import Table
from energy_at.runs.folder import RunFolder
from energy_at.runs.metrics_log import Curve

COLUMNS = ("set", "run", "steps an epoch", "what happened", "alarm by steps alone",
           "alarm with held-out images", "latency, steps", "latency, epochs",
           "verdict")  # fmt: skip
FACTS = ("data", "single-step", "regularizer", "status")  # columns of the CSV file alone
BINS = 150


@dataclass(frozen=True)
class Watch:
    """A run that is over, what happened to it, and what the sentinel says to its log.

    What happened is read from PGD accuracy on held-out images alone.

    Attributes:
        folder: Of the run.
        part: Of the study: thresholds were chosen on some runs and tested on others.
        thresholds: Of the sentinel.
    """

    folder: RunFolder
    part: str
    thresholds: Thresholds = field(default_factory=Thresholds)

    @cached_property
    def rows(self) -> list[dict[str, float]]:
        """Of its ``metrics.csv``."""
        with self.folder.metrics_file.open(newline="") as file:
            return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]

    @cached_property
    def pgd(self) -> Curve:
        """PGD accuracy on held-out images."""
        return self.folder.log()[PGD_ACCURACY]

    @property
    def chance(self) -> float:
        """Accuracy of a guess."""
        return 1 / int(self.folder.config().dataset.classes)

    @property
    def name(self) -> str:
        """Data, method, radius, learning rate and seed."""
        cfg = self.folder.config()
        size = "" if cfg.dataset.subset is None else f" {cfg.dataset.subset:,}"
        beta = f" {cfg.reg.weight:g}" if "der" in cfg.reg.terms else ""
        rate = f"{cfg.optimizer.lr:g} {str(cfg.schedule._target_).rpartition('.')[2]}"
        named = "name" in cfg.reg  # older configurations say less
        what = f"{MethodLabel.of(cfg)}{beta}" if named else self.folder.path.name
        return f"{cfg.dataset.name}{size}, {what}, eps {cfg.threat.eps}, lr {rate}, seed {cfg.seed}"

    @cached_property
    def fall(self) -> int | None:
        """Step of the first validation below half the best so far, or below half of chance.

        A network that becomes robust later is not collapsed before, and what is lost under a
        multi-step attack is lost to robust overfitting.
        """
        if int(self.folder.config().attack.steps) > 1:
            return None
        accuracies = self.pgd.values
        robust = np.flatnonzero(accuracies >= LEARNED * self.chance)
        first = int(robust[0]) if len(robust) else 0
        best = np.maximum.accumulate(np.maximum(accuracies, self.chance))
        fallen = np.flatnonzero(accuracies < best / 2)
        fallen = fallen[fallen >= first]
        return int(self.pgd.steps[fallen[0]]) if len(fallen) else None

    @cached_property
    def status(self) -> RunStatus:
        """Whether it kept its robustness to its end."""
        cfg = self.folder.config()
        rows, images = self.folder.log().rows(PGD_ACCURACY), int(cfg.dataset.val_size)
        return status_of(rows, images, self.chance, single_step=int(cfg.attack.steps) <= 1)

    @cached_property
    def overfitted(self) -> int | None:
        """Step at which its running mean has lost three points to robust overfitting."""
        if self.status.kind != "overfitted":
            return None
        means = running_means(self.pgd.values)
        lost = np.flatnonzero(np.maximum.accumulate(means) - means >= MARGIN)
        if len(lost):
            return int(self.pgd.steps[WINDOW - 1 + lost[0]])
        below = self.pgd.values < np.maximum.accumulate(self.pgd.values) / 2  # too few for means
        return int(self.pgd.steps[np.flatnonzero(below)[0]])

    @property
    def learned(self) -> bool:
        """Whether it was ever better than a guess."""
        return bool(np.max(self.pgd.values) >= LEARNED * self.chance)

    def alarms(self, *, held_out: bool) -> list[Alarm]:
        """What the sentinel says, with or without the rows of the validations."""
        cfg = self.folder.config()
        climbs = make(cfg.attack.search).climbs_loss
        classes, images = int(cfg.dataset.classes), int(cfg.dataset.val_size)
        detector = Detector(self.thresholds, classes, climbs, images)
        seen = [row for row in self.rows if held_out or find_column(row, PGD_ACCURACY) not in row]
        return [alarm for alarm in map(detector.update, seen) if alarm is not None]

    @cached_property
    def verdict(self) -> tuple[str, int | None, str]:
        """What happened, the latency in steps, and whether the alarm was in time."""
        found = self.alarms(held_out=True)
        per_epoch = self.folder.log().steps_per_epoch
        if self.fall is not None:
            known = {"collapsed": "CO", "in passing": "CO in passing"}.get(
                self.kind, f"CO, {self.kind},"
            )
            step = next((alarm.step for alarm in found if alarm.kind == "CO"), None)
            if step is None:
                return f"{known} from {self.fall}", None, "missed"
            latency = step - self.fall
            word = "in time" if latency < per_epoch else "late"
            return f"{known} from {self.fall}", latency, word
        if self.overfitted is not None:
            step = next((alarm.step for alarm in found if alarm.kind == "RO"), None)
            what = f"RO, 3 points lost at {self.overfitted}"
            if step is None:
                return what, None, "missed"
            latency = step - self.overfitted
            return what, latency, "in time" if latency < 0 else "late"
        what = "healthy" if self.learned else "not learned"
        return what, None, "false alarm" if found else "silent"

    @property
    def kind(self) -> str:
        """What happened to its robustness, in a word or two."""
        if self.fall is not None and not self.learned:
            return "never robust"
        if self.fall is not None:
            return "collapsed" if self.status.kind == "collapsed" else "in passing"
        if self.overfitted is not None:
            return "overfitted"
        return "robust" if self.learned else "not learned"

    def facts(self) -> tuple[str, ...]:
        """Values of ``FACTS``."""
        cfg = self.folder.config()
        one = "yes" if int(cfg.attack.steps) == 1 else "no"
        return (cfg.dataset.name, one, ", ".join(cfg.reg.terms) or "none", self.kind)

    def row(self) -> tuple[str, ...]:
        """Its cells of the table."""
        what, latency, verdict = self.verdict
        per_epoch = self.folder.log().steps_per_epoch
        alone, together = (_said(self.alarms(held_out=held_out)) for held_out in (False, True))
        steps = "" if latency is None else f"{latency:+d}"
        epochs = "" if latency is None else f"{latency / per_epoch:+.2f}"
        return (self.part, self.name, f"{per_epoch:.0f}", what, alone, together, steps, epochs,
                verdict)  # fmt: skip


def study(parts: Mapping[str, Sequence[Path]], thresholds: Thresholds | None = None) -> list[Watch]:
    """Every run of each part of a study."""
    limits = thresholds or Thresholds()
    return [Watch(RunFolder.open(run), part, limits) for part, runs in parts.items()
            for run in runs]  # fmt: skip


def study_table(watches: Sequence[Watch]) -> Table:
    """One row for each run."""
    return Table(COLUMNS, [watch.row() for watch in watches])


def study_figure(watches: Sequence[Watch], columns: int = 5) -> Figure:
    """AAE share and PGD accuracy of every run; a line where it fell, triangles for alarms."""
    lines = ceil(len(watches) / columns)
    with mpl.rc_context({**OPEN, "font.size": 6.5}):
        figure = Figure(figsize=(WIDTH, 0.4 + 1.45 * lines), layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
        for axes in panels[len(watches) :]:
            axes.remove()
        for axes, watch in zip(panels, watches, strict=False):
            _panel(axes, watch)
        handles = panels[0].get_lines()[:2]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def write_study(parts: Mapping[str, Sequence[Path]], out: Path) -> list[Watch]:
    """Writes ``table.md``, ``table.csv`` and the figure."""
    watches = study(parts)
    table = study_table(watches)
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(table.markdown() + "\n")
    facts = Table((*COLUMNS, *FACTS), [watch.row() + watch.facts() for watch in watches])
    (out / "table.csv").write_text(facts.csv())
    picture, _ = save(study_figure(watches), out / "signals")
    with Image.open(picture) as drawn:  # a hundred panels in six colours: a quarter of the size
        few = drawn.convert("RGB").quantize(64, dither=Image.Dither.NONE)
    few.save(picture, optimize=True)
    return watches


def _said(alarms: Sequence[Alarm]) -> str:
    """``CO 52, RO 240``: the first of each kind."""
    first = {alarm.kind: alarm.step for alarm in reversed(alarms)}
    return ", ".join(f"{kind} {step}" for kind, step in sorted(first.items())) or "none"


def _panel(axes: Axes, watch: Watch) -> None:
    log = watch.folder.log()
    share, per_epoch = log["train/aae_share"].binned(BINS), log.steps_per_epoch
    axes.plot(share.steps / per_epoch, 100 * share.mean, color=DELTA_X.color, linewidth=0.6,
              label="AAE share, training [%]")  # fmt: skip
    axes.plot(watch.pgd.steps / per_epoch, 100 * watch.pgd.values, color=PGD.color, linewidth=0.9,
              marker=".", markersize=2, label="PGD accuracy, held-out [%]")  # fmt: skip
    truth = watch.fall or watch.overfitted
    if truth is not None:
        axes.axvline(truth / per_epoch, color="0.4", linestyle="--", linewidth=0.8)
    alarms = watch.alarms(held_out=True)
    mark_alarms(axes, [Mark(alarm.kind, alarm.step / per_epoch, "black") for alarm in alarms])
    what, *where = watch.name.rsplit(", ", 3)
    axes.set_title(f"{what}\n{', '.join(where)}", fontsize=5.5)
    axes.set_ylim(-3, 118)  # alarms are above 100


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="PART=FOLDER")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    parts: dict[str, list[Path]] = {}
    for part, _, folder in (run.partition("=") for run in options.runs):
        parts.setdefault(part, []).append(Path(folder))
    write_study(parts, options.out)


if __name__ == "__main__":
    main()
