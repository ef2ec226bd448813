"""One table of metrics and panels: figures, tables, terminal, browser and W&B derive from it.

Keys of metrics are those of ``metrics.csv`` and of W&B's history; those of a ``Scatter`` and of
``Scores`` are keys of a run's configuration and of W&B's summary.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from energy_at.overfitting.alarms import ALARMS

Unit = Literal["nats", "%", "1", "images/s"]
Often = Literal["step", "epoch"]


@dataclass(frozen=True)
class Metric:
    """One curve: a logged metric, or the difference of two.

    Attributes:
        key: Column of ``metrics.csv``.
        label: Name in panels and on axes.
        unit: Shares are logged from 0 to 1 and shown in ``%``.
        short: Name in the progress bar and in columns of tables.
        form: Format of the logged value.
        color: In figures of a single run; Okabe and Ito's palette.
        summary: What W&B keeps of it.
        minus: Key of the metric that is subtracted.
    """

    key: str
    label: str
    unit: Unit = "nats"
    short: str = ""
    form: str = ".3f"
    color: str = "#0072B2"
    summary: str = "last"
    minus: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Columns of ``metrics.csv``."""
        return (self.key,) if self.minus is None else (self.key, self.minus)

    @property
    def name(self) -> str:
        """Identifies the curve: ``val/acc/fgsm - val/acc/pgd``."""
        return " - ".join(self.keys)

    @property
    def scale(self) -> int:
        """Factor from the logged to the shown value."""
        return 100 if self.unit == "%" else 1

    @property
    def axis(self) -> str:
        """Label of an axis, with the unit."""
        return f"{self.label} [{self.unit}]"

    @property
    def column(self) -> str:
        """Title of a column."""
        return f"{self.short} %" if self.unit == "%" else self.short


@dataclass(frozen=True)
class Panel:
    """Curves over optimizer steps, on one axis.

    Attributes:
        title: Above the panel.
        lines: Its curves; those of held-out images are logged after every epoch.
        every: How often the first curve is logged.
    """

    title: str
    lines: tuple[Metric, ...]
    every: Often = "step"

    @property
    def unit(self) -> Unit:
        return self.lines[0].unit

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
    """Images of a sampling."""

    title: str
    keys: tuple[str, ...]


AnyPanel = Panel | Scatter | Scores | Images


@dataclass(frozen=True)
class Section:
    """Panels that belong together."""

    title: str
    panels: tuple[AnyPanel, ...]


def _shift(name: str, label: str, color: str, summary: str) -> tuple[Metric, Metric]:
    """A shift of energies on training and on held-out images."""
    key = f"delta_energy/{name}"
    return (
        Metric(f"train/{key}", f"{label}, training", short=label, form="+.3f", color=color,
               summary=summary),
        Metric(f"val/{key}", f"{label}, held-out", form="+.3f", color=color),
    )  # fmt: skip


def _accuracy(attack: str, split: str = "val") -> Metric:
    images = {"val": "held-out", "test": "test"}[split]
    return Metric(
        f"{split}/acc/{attack.lower()}", f"{attack} accuracy, {images}", "%", attack, ".2f",
        summary="max,last",
    )  # fmt: skip


DELTA_X, HELD_OUT_X = _shift("marginal", "dE(x)", "#D55E00", "min,max,last")
DELTA_XY, HELD_OUT_XY = _shift("joint", "dE(x, y)", "#E69F00", "min,max,last")
SHIFT, HELD_OUT_SHIFT = _shift("shift_norm", "shift norm", "#009E73", "max,last")
AAE = Metric("train/aae_share", "AAE share, training", "%", "AAE share", ".2f", summary="max,last")
HELD_OUT_AAE = Metric("val/aae_share", "AAE share, held-out", "%")
CLEAN = Metric("train/acc/clean", "clean accuracy, training", "%", "clean", ".2f")
ATTACKED = Metric("train/acc/adv", "accuracy under training attack", "%", "adv", ".2f")
HELD_OUT_CLEAN, FGSM, PGD = map(_accuracy, ("clean", "FGSM", "PGD"))
TEST_CLEAN, TEST_PGD = _accuracy("clean", "test"), _accuracy("PGD", "test")
FGSM_MINUS_PGD = Metric(
    FGSM.key, "FGSM - PGD accuracy, held-out", "%", "FGSM-PGD", minus=PGD.key
)  # fmt: skip
LOSS = Metric("train/loss", "loss, training", short="loss", summary="min,last")
RATE = Metric("perf/images_per_s", "images per second", "images/s", "img/s", ".0f")

_PANELS_OF_ENERGIES = tuple(
    Panel(
        f"{kind} energy",
        (
            Metric(f"train/energy/{kind}_clean", symbol),
            Metric(f"train/energy/{kind}_adv", symbol.replace("x", "x*", 1)),
        ),
    )
    for kind, symbol in {"marginal": "E(x)", "joint": "E(x, y)"}.items()
)


def _alone(metric: Metric, every: Often = "step") -> Panel:
    return Panel(metric.label, (metric,), every)


def _against_weight(metric: Metric) -> Scatter:
    return Scatter(metric.label, metric.unit, "reg.weight", f"last/{metric.key}")


SECTIONS = (
    Section(
        "Delta energies",
        (
            *map(_alone, (DELTA_X, DELTA_XY, SHIFT)),
            *(_alone(metric, "epoch") for metric in (HELD_OUT_X, HELD_OUT_XY, HELD_OUT_SHIFT)),
        ),
    ),
    Section(
        "Robustness",
        (
            Panel("abnormal adversarial examples", (AAE, HELD_OUT_AAE)),
            *(_alone(metric, "epoch") for metric in (FGSM_MINUS_PGD, PGD, FGSM)),
            Panel("clean accuracy", (CLEAN, HELD_OUT_CLEAN)),
            _alone(ATTACKED),
        ),
    ),
    Section(
        "Alarms",
        (
            Panel(
                "alarms",
                tuple(Metric(key, f"{name} alarm", "1") for name, key in ALARMS.items()),
            ),
        ),
    ),
    Section(
        "Energies",
        (
            *_PANELS_OF_ENERGIES,
            Panel(
                "scale of the logits", (Metric("train/logit_scale", "RMS of clean logits", "1"),)
            ),
        ),
    ),
    Section(
        "Optimization",
        (
            Panel("loss", (LOSS,)),
            Panel(
                "cross-entropy, held-out",
                (
                    Metric("val/ce/clean", "cross-entropy, held-out"),
                    Metric("val/ce/pgd", "cross-entropy under PGD, held-out"),
                ),
                "epoch",
            ),
            _alone(Metric("lr", "learning rate", "1")),
        ),
    ),
    Section(
        "Sweep over beta",
        (
            *map(_against_weight, (PGD, TEST_PGD, TEST_CLEAN)),
            Scatter("max dE(x)", "nats", "reg.weight", f"{DELTA_X.key}.max"),
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
            Scores("classifier accuracy", "sample/classifier_accuracy"),
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


METRICS = {line.name: line for _, panel in curve_panels() for line in panel.lines}


def specification() -> list[dict[str, Any]]:
    """All panels as plain data."""
    return [
        {
            "title": section.title,
            "panels": [
                {"kind": type(p).__name__.lower()}
                | ({"unit": p.unit} if isinstance(p, Panel) else {})
                | asdict(p)
                for p in section.panels
            ],
        }
        for section in SECTIONS
    ]
