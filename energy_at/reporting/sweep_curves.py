"""What became of the runs of a sweep against a number that was swept, such as the weight of DER."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from energy_at.reporting.figures.style import save
from energy_at.reporting.figures.sweep_curves import Point, dependence_figure
from energy_at.reporting.finished_run import APART, FinishedRun
from energy_at.reporting.tables import Table

CURVES = 6  # more of them, as a search over several numbers makes, are joined to one
DELTA = {"dE(x)": "train/delta_energy/marginal", "dE(x, y)": "train/delta_energy/joint"}
HELD_OUT = "held-out PGD %"


@dataclass(frozen=True)
class Dependence:
    """Runs by the value of one key.

    Attributes:
        key: The key, such as ``reg.weight``.
        curves: Runs by value, for each choice of everything else but the seed.
    """

    key: str
    curves: Mapping[str, Mapping[float, Sequence[FinishedRun]]]

    @property
    def stem(self) -> str:
        """Name of its files."""
        return f"against_{self.key.replace('.', '_')}"

    def table(self) -> Table:
        """One row for each value: mean and range over seeds of the runs that are results.

        Accuracies of the last network in percent, PGD on held-out and on test images; delta
        energies (nats) of the last epoch on training images. Of a lost run is said what it is.
        """
        columns = (self.key, "with", "runs", HELD_OUT, "test clean %", "test PGD %", *DELTA, "lost")
        rows = [
            (f"{value:.6g}", name, str(len(runs)), *_cells(runs), _lost(runs))
            for name, curve in self.curves.items()
            for value, runs in curve.items()
        ]
        return Table(columns, rows)

    def best(self) -> str:
        """Which value, all of whose runs are results, is best on held-out images."""
        found = {
            (name, value): spread([run.held_out_percent() for run in runs])
            for name, curve in self.curves.items()
            for value, runs in curve.items()
            if not any(run.mark() for run in runs)
        }
        known = {place: accuracy for place, accuracy in found.items() if accuracy is not None}
        if not known:
            why = "for every value some run collapsed or has not learned"
            why = "no run was measured on held-out images" if found else why
            return f"No best {self.key} is named: {why}."
        (name, value), (mean, low, high) = max(known.items(), key=lambda item: item[1][0])
        runs = len(self.curves[name][value])
        among = f", {name}" if name else ""
        return (
            f"Best on held-out images: {self.key}={value:.6g}{among}, with PGD accuracy "
            f"{mean:.1f} % [{low:.1f}, {high:.1f}], {runs} run{'s'[: runs > 1]}. "
            "Test images had no say."
        )

    def points(self) -> dict[str, list[Point]]:
        """What its figure shows."""
        return {
            name: [
                Point(x, _measured(run), bool(run.mark())) for x, runs in c.items() for run in runs
            ]
            for name, c in self.curves.items()
        }


def dependences(runs: Sequence[FinishedRun]) -> list[Dependence]:
    """One for each number of which several values were typed, over runs that know it."""
    typed = [_typed(run) for run in runs]
    keys = dict.fromkeys(key for own in typed for key in own)
    numbers = {key: [_number(run, key) for run in runs] for key in keys}
    swept = [
        key for key, found in numbers.items()
        if len({number for number in found if number is not None}) > 1
        and all(number is not None for number, own in zip(found, typed, strict=True) if key in own)
    ]  # fmt: skip
    return [_dependence(key, runs, typed, numbers[key], swept) for key in swept]


def write_dependences(runs: Sequence[FinishedRun], out: Path) -> list[str]:
    """Writes the table (CSV) and the figure of each.

    Returns:
        What is best, in a sentence each.
    """
    found = dependences(runs)
    for one in found:
        (out / f"{one.stem}.csv").write_text(one.table().csv())
        save(dependence_figure(one.key, one.points()), out / one.stem)
    return [one.best() for one in found]


def spread(values: Sequence[float | None]) -> tuple[float, float, float] | None:
    """Mean, least and greatest of what is known."""
    known = [value for value in values if value is not None and value == value]
    return (sum(known) / len(known), min(known), max(known)) if known else None


def _dependence(
    key: str,
    runs: Sequence[FinishedRun],
    typed: Sequence[Mapping[str, str]],
    numbers: Sequence[float | None],
    swept: Sequence[str],
) -> Dependence:
    differing = {k for own in typed for k in own if len({o.get(k) for o in typed}) > 1} - {key}
    names = [", ".join(f"{k}={v}" for k, v in own.items() if k in differing) for own in typed]
    if len(set(names)) > CURVES:
        others = differing - set(swept)
        names = [", ".join(f"{k}={v}" for k, v in own.items() if k in others) for own in typed]
    curves: dict[str, dict[float, list[FinishedRun]]] = {}
    for run, name, number in zip(runs, names, numbers, strict=True):
        if number is not None:
            curves.setdefault(name, {}).setdefault(number, []).append(run)
    return Dependence(key, {name: dict(sorted(c.items())) for name, c in curves.items()})


def _typed(run: FinishedRun) -> dict[str, str]:
    """Values by key, but for what changes no result, and for sweeps that name others."""
    pairs = [override.lstrip("+").partition("=") for override in run.folder.overrides()]
    apart = (*APART, "sweep")
    return {
        key: value for key, _, value in pairs
        if not any(key == a or key.startswith(f"{a}.") for a in apart)
    }  # fmt: skip


def _number(run: FinishedRun, key: str) -> float | None:
    value: Any = OmegaConf.select(run.config, key)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(Fraction(value) if isinstance(value, str) else value)
    except (ValueError, ZeroDivisionError):
        return None


def _measured(run: FinishedRun) -> dict[str, float | None]:
    means = {name: run.log.last_epoch_mean(key) for name, key in DELTA.items()}
    return {
        HELD_OUT: run.held_out_percent(),
        "test clean %": run.percent(run.final, "clean"),
        "test PGD %": run.percent(run.final, "pgd"),
        **means,
    }


def _cells(runs: Sequence[FinishedRun]) -> list[str]:
    sound = [_measured(run) for run in runs if not run.mark()]
    names = (HELD_OUT, "test clean %", "test PGD %", *DELTA)
    forms = [".1f"] * 3 + ["+.3f"] * 2
    return [
        _cell([one[name] for one in sound], form) for name, form in zip(names, forms, strict=True)
    ]


def _cell(values: Sequence[float | None], form: str) -> str:
    found = spread(values)
    if found is None:
        return ""
    mean, low, high = (f"{number:{form}}" for number in found)
    return mean if low == high else f"{mean} [{low}, {high}]"


def _lost(runs: Sequence[FinishedRun]) -> str:
    marks = [run.mark() for run in runs if run.mark()]
    return ", ".join(f"{mark} ({marks.count(mark)})" for mark in dict.fromkeys(marks))
