"""The panels, once: a W&B workspace, a report and a live view draw the same ones.

Keys of curves are those of ``metrics.csv`` and of W&B's history; those of a ``Scatter`` and of
``Scores`` are of a run's configuration and of W&B's summary.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from energy_at.overfitting.alarms import ALARMS

Often = Literal["step", "epoch"]


@dataclass(frozen=True)
class Line:
    """One curve: a metric, or the difference of two."""

    key: str
    label: str
    minus: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """What it is drawn from."""
        return (self.key,) if self.minus is None else (self.key, self.minus)


@dataclass(frozen=True)
class Panel:
    """Curves over optimizer steps, on one axis.

    Attributes:
        title: Above it.
        unit: Of its axis; shares are logged from 0 to 1 and shown in ``%``.
        lines: Its curves; those of held-out images are logged after every epoch.
        every: How often its first curve is logged.
    """

    title: str
    unit: str
    lines: tuple[Line, ...]
    every: Often = "step"

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the history."""
        return tuple(key for line in self.lines for key in line.keys)


@dataclass(frozen=True)
class Scatter:
    """One point for each run of a sweep: a summary against a setting."""

    title: str
    unit: str
    x: str
    y: str

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the configuration, and of the summary."""
        return (self.x, self.y)


@dataclass(frozen=True)
class Scores:
    """One bar for each sampling."""

    title: str
    key: str

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the summary."""
        return (self.key,)


@dataclass(frozen=True)
class Images:
    """Pictures of a sampling."""

    title: str
    keys: tuple[str, ...]


AnyPanel = Panel | Scatter | Scores | Images


@dataclass(frozen=True)
class Section:
    """Panels that belong together."""

    title: str
    panels: tuple[AnyPanel, ...]


def _shift(name: str, label: str) -> tuple[Panel, Panel]:
    """A shift of energies in training, and on held-out images: their scales can be far apart."""
    training = Line(f"train/delta_energy/{name}", f"{label}, training")
    held_out = Line(f"val/delta_energy/{name}", f"{label}, held-out")
    return (
        Panel(training.label, "nats", (training,)),
        Panel(held_out.label, "nats", (held_out,), "epoch"),
    )


def _both(title: str, name: str, label: str) -> Panel:
    """A share of training images at every step, and of held-out images after every epoch."""
    lines = (Line(f"train/{name}", f"{label}, training"), Line(f"val/{name}", f"{label}, held-out"))
    return Panel(title, "%", lines)


def _held_out(attack: str) -> Panel:
    label = f"{attack} accuracy, held-out"
    return Panel(label, "%", (Line(f"val/acc/{attack.lower()}", label),), "epoch")


DELTA_X, HELD_OUT_X = _shift("marginal", "dE(x)")
DELTA_XY, HELD_OUT_XY = _shift("joint", "dE(x, y)")
SHIFT, HELD_OUT_SHIFT = _shift("shift_norm", "shift norm")
AAE = _both("abnormal adversarial examples", "aae_share", "AAE share")
CLEAN = _both("clean accuracy", "acc/clean", "clean accuracy")
ATTACKED = Panel(
    "accuracy under the training attack",
    "%",
    (Line("train/acc/adv", "accuracy under training attack"),),
)
FGSM, PGD = _held_out("FGSM"), _held_out("PGD")
GAP = Panel(
    "FGSM-PGD gap, held-out",
    "%",
    (Line("val/acc/fgsm", "FGSM - PGD accuracy, held-out", minus="val/acc/pgd"),),
    "epoch",
)
LOSSES = Panel(
    "cross-entropy, held-out",
    "nats",
    (
        Line("val/ce/clean", "cross-entropy, held-out"),
        Line("val/ce/pgd", "cross-entropy under PGD, held-out"),
    ),
    "epoch",
)
LOSS = Panel("loss", "nats", (Line("train/loss", "loss, training"),))
RATE = Panel("learning rate", "1", (Line("lr", "learning rate"),))
LOGITS = Panel("scale of the logits", "1", (Line("train/logit_scale", "RMS of clean logits"),))


def _energies(title: str, kind: str, symbol: str) -> Panel:
    lines = (
        Line(f"train/energy/{kind}_clean", symbol),
        Line(f"train/energy/{kind}_adv", symbol.replace("x", "x*", 1)),
    )
    return Panel(title, "nats", lines)


ALARM = Panel("alarms", "1", tuple(Line(key, f"{name} alarm") for name, key in ALARMS.items()))

SECTIONS = (
    Section("Delta energies", (DELTA_X, DELTA_XY, SHIFT, HELD_OUT_X, HELD_OUT_XY, HELD_OUT_SHIFT)),
    Section("Robustness", (AAE, GAP, PGD, FGSM, CLEAN, ATTACKED)),
    Section("Alarms", (ALARM,)),
    Section(
        "Energies",
        (
            _energies("marginal energy", "marginal", "E(x)"),
            _energies("joint energy", "joint", "E(x, y)"),
            LOGITS,
        ),
    ),
    Section("Optimization", (LOSS, LOSSES, RATE)),
    Section(
        "Sweep over beta",
        (
            Scatter("PGD accuracy, held-out", "%", "reg.weight", "last/val/acc/pgd"),
            Scatter("PGD accuracy, test", "%", "reg.weight", "last/test/acc/pgd"),
            Scatter("clean accuracy, test", "%", "reg.weight", "last/test/acc/clean"),
            Scatter("highest dE(x)", "nats", "reg.weight", "train/delta_energy/marginal.max"),
        ),
    ),
    Section(
        "Samples",
        (
            Scores("IS", "sample/inception_score"),
            Scores("FID", "sample/fid"),
            Scores("KID", "sample/kid"),
            Scores("precision", "sample/precision"),
            Scores("recall", "sample/recall"),
            Scores("judged right", "sample/judge"),
            Images("samples, and nearest training images", ("samples/grid", "samples/nearest")),
        ),
    ),
)


def curve_panels() -> Iterator[tuple[str, Panel]]:
    """Every panel of curves, with the title of its section."""
    for section in SECTIONS:
        for panel in section.panels:
            if isinstance(panel, Panel):
                yield section.title, panel


def specification() -> list[dict[str, Any]]:
    """All panels as plain data."""
    return [
        {
            "title": section.title,
            "panels": [{"kind": type(p).__name__.lower(), **asdict(p)} for p in section.panels],
        }
        for section in SECTIONS
    ]
