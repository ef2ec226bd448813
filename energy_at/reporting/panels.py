"""One table of metrics and panels: figures, tables, terminal, browser and W&B derive from it.

Keys of metrics are those of ``metrics.csv`` and of W&B's history; those of a ``Scatter`` and of
``Scores`` are keys of a run's configuration and of W&B's summary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from energy_at.overfitting.alarms import ALARMS, PGD_ACCURACY, PGD_LOSS

Unit = Literal["nats", "%", "1", "images/s"]


@dataclass(frozen=True)
class Metric:
    """One curve: a logged metric, or the difference of two.

    Attributes:
        key: Column of ``metrics.csv``.
        label: Name in panels and on axes.
        unit: Shares are logged from 0 to 1 and shown in ``%``.
        short: Name in the progress bar and in columns of tables; the label if left out.
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
        return (self.key,) if self.minus is None else (self.key, self.minus)

    @property
    def name(self) -> str:
        """Identifies the curve: ``val/acc/fgsm - val/acc/pgd10``."""
        return " - ".join(self.keys)

    @property
    def scale(self) -> int:
        """Factor from the logged to the shown value."""
        return 100 if self.unit == "%" else 1

    @property
    def axis(self) -> str:
        return f"{self.label} [{self.unit}]"

    @property
    def column(self) -> str:
        name = self.short or self.label
        return f"{name} %" if self.unit == "%" else name

    @property
    def cell_form(self) -> str:
        return ".1f" if self.unit == "%" else self.form


@dataclass(frozen=True)
class Panel:
    """Curves over optimizer steps, on one axis."""

    title: str
    lines: tuple[Metric, ...]

    @property
    def unit(self) -> Unit:
        return self.lines[0].unit

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for line in self.lines for key in line.keys)


@dataclass(frozen=True)
class Scatter:
    """One point for each run of a sweep: a summary against a setting."""

    title: str
    unit: str
    x: str
    y: str


@dataclass(frozen=True)
class Scores:
    """One bar for each sampling."""

    title: str
    key: str


@dataclass(frozen=True)
class Images:
    """Images of a sampling."""

    title: str
    keys: tuple[str, ...]


AnyPanel = Panel | Scatter | Scores | Images


def _shift(name: str, label: str, color: str, summary: str) -> tuple[Metric, Metric]:
    key = f"delta_energy/{name}"
    return (
        Metric(f"train/{key}", f"{label}, training", short=label, form="+z.3f", color=color,
               summary=summary),
        Metric(f"val/{key}", f"{label}, held-out", form="+z.3f", color=color),
    )  # fmt: skip


def _accuracy(key: str, attack: str) -> Metric:
    images = "held-out" if key.startswith("val/") else "test"
    return Metric(key, f"{attack} accuracy, {images}", "%", attack, ".2f", summary="max,last")


DELTA_X, HELD_OUT_X = _shift("marginal", "dE(x)", "#D55E00", "min,max,last")
DELTA_XY, HELD_OUT_XY = _shift("joint", "dE(x, y)", "#E69F00", "min,max,last")
SHIFT, HELD_OUT_SHIFT = _shift("shift_norm", "shift norm", "#009E73", "max,last")
AAE = Metric("train/aae_share", "AAE share, training", "%", "AAE share", ".2f", summary="max,last")
PERT_ALIGN = Metric("train/pert_align", "PertAlign, training", "1", summary="min,last")
HELD_OUT_AAE = Metric("val/aae_share", "AAE share, held-out", "%")
CLEAN = Metric("train/acc/clean", "clean accuracy, training", "%", "clean", ".2f")
ATTACKED = Metric("train/acc/adv", "accuracy under training attack", "%", "adv", ".2f")
HELD_OUT_CLEAN, FGSM = _accuracy("val/acc/clean", "clean"), _accuracy("val/acc/fgsm", "FGSM")
PGD = _accuracy(PGD_ACCURACY, "PGD")
TEST_CLEAN, TEST_PGD = _accuracy("test/acc/clean", "clean"), _accuracy("test/acc/pgd20", "PGD")
FGSM_MINUS_PGD = Metric(FGSM.key, "FGSM - PGD accuracy, held-out", "%", "FGSM-PGD", minus=PGD.key)
LOSS = Metric("train/loss", "loss, training", short="loss", summary="min,last")
RATE = Metric("perf/images_per_s", "images per second", "images/s", "img/s", ".0f")
SCORES = {  # by their keys in samples.json
    "inception_score": Metric("sample/inception_score", "IS", "1", form=".2f"),
    "fid": Metric("sample/fid", "FID", "1", form=".2f"),
    "kid": Metric("sample/kid", "KID", "1", form=".4f"),
    "precision": Metric("sample/precision", "precision", "1"),
    "recall": Metric("sample/recall", "recall", "1"),
    "classifier_accuracy": Metric("sample/classifier_accuracy", "classifier accuracy", "%"),
    "variety": Metric("sample/variety", "variety", "1"),
    "nearest": Metric("sample/nearest", "nearest", "1"),
    "copied": Metric("sample/copied", "copied", "%"),
}


def _alone(*metrics: Metric) -> list[Panel]:
    return [Panel(metric.label, (metric,)) for metric in metrics]


def _against_weight(*metrics: Metric) -> list[Scatter]:
    return [Scatter(m.label, m.unit, "reg.weight", f"last/{m.key}") for m in metrics]


SECTIONS: dict[str, Sequence[AnyPanel]] = {
    "Delta energies": _alone(DELTA_X, DELTA_XY, SHIFT, HELD_OUT_X, HELD_OUT_XY, HELD_OUT_SHIFT),
    "Robustness": (
        Panel("abnormal adversarial examples", (AAE, HELD_OUT_AAE)),
        *_alone(FGSM_MINUS_PGD, PGD, FGSM),
        Panel("clean accuracy", (CLEAN, HELD_OUT_CLEAN)),
        *_alone(ATTACKED, PERT_ALIGN),
    ),
    "Alarms": (
        Panel("alarms", tuple(Metric(key, f"{name} alarm", "1") for name, key in ALARMS.items())),
    ),
    "Energies": (
        *(
            Panel(
                f"{kind} energy",
                (
                    Metric(f"train/energy/{kind}_clean", symbol),
                    Metric(f"train/energy/{kind}_adv", symbol.replace("x", "x*", 1)),
                ),
            )
            for kind, symbol in {"marginal": "E(x)", "joint": "E(x, y)"}.items()
        ),
        Panel("scale of the logits", (Metric("train/logit_scale", "RMS of clean logits", "1"),)),
    ),
    "Optimization": (
        Panel("loss", (LOSS,)),
        Panel(
            "cross-entropy, held-out",
            (
                Metric("val/ce/clean", "cross-entropy, held-out"),
                Metric(PGD_LOSS, "cross-entropy under PGD, held-out"),
            ),
        ),
        *_alone(Metric("lr", "learning rate", "1")),
    ),
    "Sweep over beta": (
        *_against_weight(PGD, TEST_PGD, TEST_CLEAN),
        Scatter("PGD-50-10 accuracy, test", "%", "reg.weight", "last/test/acc/pgd50x10"),
        Scatter("max dE(x)", "nats", "reg.weight", f"{DELTA_X.key}.max"),
    ),
    "Samples": (
        *(Scores(metric.label, metric.key) for metric in SCORES.values()),
        Images("samples, and nearest training images", ("samples/grid", "samples/nearest")),
    ),
}


def curve_panels() -> Iterator[tuple[str, Panel]]:
    for title, panels in SECTIONS.items():
        yield from ((title, panel) for panel in panels if isinstance(panel, Panel))


METRICS = {line.name: line for _, panel in curve_panels() for line in panel.lines}


def specification() -> list[dict[str, Any]]:
    """All panels as plain data; a panel says how often its first curve is logged."""
    return [
        {"title": title, "panels": [_plain(panel) for panel in panels]}
        for title, panels in SECTIONS.items()
    ]


def _plain(panel: AnyPanel) -> dict[str, Any]:
    kind = {"kind": type(panel).__name__.lower()}
    if not isinstance(panel, Panel):
        return kind | asdict(panel)
    every = "epoch" if panel.lines[0].key.startswith("val/") else "step"
    return kind | {"unit": panel.unit} | asdict(panel) | {"every": every}
