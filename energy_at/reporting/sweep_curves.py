"""Results of a sweep against a number that was swept, such as ``reg.weight``: table and figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from energy_at.reporting.describe import NOT_COMPARED, MethodLabel, as_number, method_labels
from energy_at.reporting.figures import (
    OPEN,
    WIDTH,
    Style,
    legend_height,
    method_styles,
    methods_legend,
    save,
)
from energy_at.reporting.finished_run import FinishedRun, typed_keys
from energy_at.reporting.panels import DELTA_X, DELTA_XY, PGD, TEST_CLEAN, TEST_PGD, Metric
from energy_at.reporting.tables import Table, mean_and_range, mean_cell

CURVES = 6  # more of them, as a search over several numbers makes, are joined to one
MEASURES = {  # columns, and what they hold
    "held-out PGD %": PGD,
    "test clean %": TEST_CLEAN,
    "test PGD %": TEST_PGD,
    "dE(x)": DELTA_X,
    "dE(x, y)": DELTA_XY,
}
PANELS = (PGD, TEST_PGD, DELTA_X, DELTA_XY)
WIDE = 20  # ratio of the greatest to the least positive value from which the axis is logarithmic


@dataclass(frozen=True)
class SweepCurves:
    """Runs by the value of one key.

    Attributes:
        key: The key, such as ``reg.weight``.
        curves: Runs by value, for each choice of everything else but the seed.
    """

    key: str
    curves: Mapping[MethodLabel, Mapping[float, Sequence[FinishedRun]]]

    @property
    def stem(self) -> str:
        """Name of its files."""
        return f"against_{self.key.replace('.', '_')}"

    def table(self) -> Table:
        """One row for each value: mean and range over seeds of the runs that are results.

        Accuracies of the last network in percent, on held-out and on test images; delta energies
        (nats) of the last epoch on training images; and how many runs are no result.
        """
        rows = []
        for label, curve in self.curves.items():
            for value, runs in curve.items():
                marks = [run.mark() for run in runs if run.mark()]
                results = [run for run in runs if not run.mark()]
                rows.append(
                    (
                        f"{value:.6g}",
                        str(_name(label, runs)),
                        str(len(runs)),
                        *(
                            mean_cell([_value(run, metric) for run in results], _form(metric))
                            for metric in MEASURES.values()
                        ),
                        ", ".join(f"{mark} ({marks.count(mark)})" for mark in dict.fromkeys(marks)),
                    )
                )
        return Table((self.key, "method", "runs", *MEASURES, "no result"), rows)

    def best(self) -> str:
        """The value with the best PGD accuracy on held-out images, of those without a lost run."""
        found = {
            (label, value): mean_and_range([run.held_out_percent() for run in runs])
            for label, curve in self.curves.items()
            for value, runs in curve.items()
            if not any(run.mark() for run in runs)
        }
        known = {place: accuracy for place, accuracy in found.items() if accuracy is not None}
        if not known:
            why = "for every value some run collapsed or is not robust"
            why = "no run was evaluated on held-out images" if found else why
            return f"No best {self.key}: {why}."
        (label, value), (mean, low, high) = max(known.items(), key=lambda item: item[1][0])
        runs = self.curves[label][value]
        among = f", {_name(label, runs)}" if len(self.curves) > 1 else ""
        return (
            f"Best on held-out images: {self.key}={value:.6g}{among}, with PGD accuracy "
            f"{mean:.1f} % [{low:.1f}, {high:.1f}], {len(runs)} run{'s'[: len(runs) > 1]}. "
            "Test images were not used for this choice."
        )

    def figure(self) -> Figure:
        """Mean over seeds with a bar from the least to the greatest; a cross for each lost run."""
        styles = {k: s | {"marker": "o"} for k, s in method_styles(list(self.curves)).items()}
        with mpl.rc_context(OPEN):
            figure = Figure(figsize=(WIDTH, 5.6 + legend_height(styles)), layout="constrained")
            for axes, metric in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
                for label, curve in self.curves.items():
                    _draw(axes, curve, metric, styles[label])
                axes.set(xlabel=self.key, ylabel=metric.axis)
                positive = sorted(x for curve in self.curves.values() for x in curve if x > 0)
                if positive and positive[-1] > WIDE * positive[0]:
                    axes.set_xscale("symlog", linthresh=positive[0])
            methods_legend(figure, styles)
        return figure


def sweep_curves(runs: Sequence[FinishedRun]) -> list[SweepCurves]:
    """One for each number that was set to several values while all else was the same."""
    ignored = (*NOT_COMPARED, "sweep")
    typed = [
        key
        for key in typed_keys(runs)
        if not any(f"{key}.".startswith(f"{other}.") for other in ignored)
    ]
    numbers = {key: [as_number(OmegaConf.select(run.config, key)) for run in runs] for key in typed}
    swept = [
        key
        for key, values in numbers.items()
        if len(set(values) - {None}) > 1
        and all(v is not None for v, run in zip(values, runs, strict=True) if key in run.typed_keys)
    ]
    labels = method_labels([run.config for run in runs], typed, without_zeros=False)
    found = [_curves(key, runs, labels, numbers[key], swept) for key in swept]
    return [one for one in found if any(len(curve) > 1 for curve in one.curves.values())]


def write_sweep_curves(runs: Sequence[FinishedRun], out: Path) -> list[str]:
    """Writes the table (CSV) and the figure for each swept number.

    Returns:
        A sentence about the best value of each.
    """
    found = sweep_curves(runs)
    for one in found:
        (out / f"{one.stem}.csv").write_text(one.table().csv())
        save(one.figure(), out / one.stem)
    return [one.best() for one in found]


def _curves(
    key: str,
    runs: Sequence[FinishedRun],
    labels: Sequence[MethodLabel],
    numbers: Sequence[float | None],
    swept: Sequence[str],
) -> SweepCurves:
    methods = [label.without(key) for label in labels]
    if len(set(methods)) > CURVES:
        methods = [label.without(*swept) for label in labels]
    curves: dict[MethodLabel, dict[float, list[FinishedRun]]] = {}
    for run, method, number in zip(runs, methods, numbers, strict=True):
        if number is not None:
            curves.setdefault(method, {}).setdefault(number, []).append(run)
    return SweepCurves(key, {method: dict(sorted(c.items())) for method, c in curves.items()})


def _name(label: MethodLabel, runs: Sequence[FinishedRun]) -> MethodLabel:
    """The base method where the weight of the regularizer is 0."""
    return label if MethodLabel.of(runs[0].config).regularizers else replace(label, regularizers=())


def _value(run: FinishedRun, metric: Metric) -> float | None:
    if metric == PGD:
        return run.held_out_percent()
    if metric in (TEST_CLEAN, TEST_PGD):
        return run.percent(run.final, metric.short.lower())
    return run.last_epoch_mean(metric.key)


def _form(metric: Metric) -> str:
    return ".1f" if metric.unit == "%" else metric.form


def _draw(
    axes: Axes, curve: Mapping[float, Sequence[FinishedRun]], metric: Metric, style: Style
) -> None:
    means: dict[float, tuple[float, float, float]] = {}
    for x, runs in curve.items():
        lost = [value for run in runs if run.mark() and (value := _value(run, metric)) is not None]
        axes.plot([x] * len(lost), lost, "x", color=style["color"])
        found = mean_and_range(_value(run, metric) for run in runs if not run.mark())
        if found is not None:
            means[x] = found
    if means:
        bars = [[mean - low, high - mean] for mean, low, high in means.values()]
        heights = [mean for mean, *_ in means.values()]
        axes.errorbar(list(means), heights, yerr=list(zip(*bars, strict=True)), capsize=3, **style)
