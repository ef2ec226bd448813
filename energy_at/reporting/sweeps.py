"""The results of a sweep: the comparison of its jobs, and curves against a swept number."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from energy_at.reporting.comparison import FILES, compare, write_comparison
from energy_at.reporting.describe import (
    NOT_COMPARED,
    MethodLabel,
    as_number,
    method_labels,
    setting,
)
from energy_at.reporting.figures import (
    MARK_STYLES,
    WIDTH,
    Style,
    method_styles,
    save,
    share_y,
    subplots,
)
from energy_at.reporting.finished_run import FinishedRun, failed_jobs, typed_keys
from energy_at.reporting.panels import DELTA_X, DELTA_XY, PGD, TEST_CLEAN, TEST_PGD, Metric
from energy_at.reporting.tables import Table, mean_and_range, mean_cell, spread
from energy_at.reporting.tradeoff import compare_samplings
from energy_at.runs.folder import runs_below

CURVES = 6  # more of them, as a search over several numbers makes, are joined to one
MEASURES = {  # columns, and what they hold
    "held-out PGD %": PGD,
    "test clean %": TEST_CLEAN,
    "test PGD %": TEST_PGD,
    "dE(x)": DELTA_X,
    "dE(x, y)": DELTA_XY,
}
TESTS = ("threat.", "validation.", "evaluation.")  # keys of what the accuracies are
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
                means = {
                    title: mean_cell([_value(r, m) for r in runs if not r.mark()], m.cell_form)
                    for title, m in MEASURES.items()
                }
                lost = ", ".join(f"{mark} ({marks.count(mark)})" for mark in dict.fromkeys(marks))
                name, count = str(_name(label, runs)), str(len(runs))
                row = {self.key: f"{value:.6g}", "method": name, "runs": count, **means}
                rows.append(row | {"no result": lost})
        return Table.of(rows)

    def numbers(self) -> Table:
        """The same as numbers: one row for each value and quantity, of runs that are results."""
        return Table.of(
            [
                {
                    self.key: value,
                    "method": str(_name(label, runs)),
                    "quantity": metric.axis,
                    "runs": len(runs),
                    **spread(_value(run, metric) for run in runs if not run.mark()),
                }
                for label, curve in self.curves.items()
                for value, runs in curve.items()
                for metric in MEASURES.values()
            ]
        )

    def best(self) -> list[str]:
        """Of each curve, the value with the best PGD accuracy on held-out images.

        Values with a lost run are left out. Curves, which differ in more than the key, are not
        compared, and neither are values that make another test, such as radii.
        """
        if self.key.startswith(TESTS):
            return []
        lines = [self._best(*one) for one in self.curves.items() if len(one[1]) > 1]
        return [*lines, "Test images were not used for the choice."]

    def _best(self, label: MethodLabel, curve: Mapping[float, Sequence[FinishedRun]]) -> str:
        of = f", {label}" if len(self.curves) > 1 else ""
        whole = {value: runs for value, runs in curve.items() if not any(r.mark() for r in runs)}
        found = {
            value: mean_and_range([run.held_out_percent() for run in runs])
            for value, runs in whole.items()
        }
        known = {value: accuracy for value, accuracy in found.items() if accuracy is not None}
        if not known:
            why = "for every value some run collapsed or is not robust"
            why = "no run was evaluated on held-out images" if found else why
            return f"No best {self.key}{of}: {why}."
        value, (mean, low, high) = max(known.items(), key=lambda item: item[1][0])
        n = len(whole[value])
        return (
            f"Best on held-out images{of}: {self.key}={value:.6g}, with PGD accuracy {mean:.1f} % "
            f"[{low:.1f}, {high:.1f}], {n} run{'s'[: n > 1]}."
        )

    def figure(self) -> Figure:
        """Mean over seeds with a bar from the least to the greatest; a cross for each lost run."""
        styles = {k: s | {"marker": "o"} for k, s in method_styles(list(self.curves)).items()}
        every = [run for curve in self.curves.values() for runs in curve.values() for run in runs]
        several = any(len(runs) > 1 for curve in self.curves.values() for runs in curve.values())
        names = ["range over seeds"] * several
        names += ["collapsed or not robust"] * any(run.mark() for run in every)
        legend = styles | {name: MARK_STYLES[name] for name in names}
        title = f"{setting([run.config for run in every])}: last network, against {self.key}"
        positive = sorted(x for curve in self.curves.values() for x in curve if x > 0)
        with subplots(2, 2, (WIDTH, 5.6), title, legend) as (figure, grid):
            for axes, metric in zip(grid, PANELS, strict=True):
                for label, curve in self.curves.items():
                    _draw(axes, curve, metric, styles[label])
                axes.set(xlabel=self.key, ylabel=metric.axis)
                if metric.unit == "%":
                    axes.set_ylim(-3, 103)
                if positive and positive[-1] > WIDE * positive[0]:
                    axes.set_xscale("symlog", linthresh=positive[0])
            share_y(grid[2:])  # dE(x) and dE(x, y)
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
    found = []
    for key in swept:
        methods = _apart([label.without(key) for label in labels], runs, set(typed) - {key})
        if len(set(methods)) > CURVES:
            methods = [label.without(*swept) for label in labels]
        curves: dict[MethodLabel, dict[float, list[FinishedRun]]] = {}
        for run, method, number in zip(runs, methods, numbers[key], strict=True):
            if number is not None:
                curves.setdefault(method, {}).setdefault(number, []).append(run)
        if any(len(curve) > 1 for curve in curves.values()):
            in_order = {method: dict(sorted(curve.items())) for method, curve in curves.items()}
            found.append(SweepCurves(key, in_order))
    return found


def _apart(
    labels: Sequence[MethodLabel], runs: Sequence[FinishedRun], typed: Collection[str]
) -> list[MethodLabel]:
    """The labels, with typed settings in which runs of the same label still differ.

    A label names as few settings as distinguish the runs, one of which may be the swept one.
    """
    found = list(labels)
    for key in sorted(typed):
        cells = [OmegaConf.select(run.config, key) for run in runs]
        if any(OmegaConf.is_config(cell) for cell in cells):
            continue  # a group: its choice is in the label
        pairs = {(label, str(cell)) for label, cell in zip(found, cells, strict=True)}
        several = Counter(label for label, _ in pairs)
        found = [
            replace(label, settings=(*label.settings, (key, str(cell))))
            if several[label] > 1
            else label
            for label, cell in zip(found, cells, strict=True)
        ]
    return found


def summary(sweep: Path, of: Literal["runs", "samplings"] = "runs") -> str:
    """The comparison of all jobs that have finished, and the jobs that failed or were lost."""
    compared = {"runs": compare_runs, "samplings": compare_samplings}[of](sweep)
    again = f"re-run the sweep with hydra.sweep.dir={sweep} to resume it"
    lines = [compared or "no job has finished"]
    lines += [f"job {path.relative_to(sweep)} was lost: {again}" for path in unfinished(sweep)]
    return "\n".join([*lines, *failed_jobs(str(sweep), alone=True)])


def unfinished(sweep: Path) -> list[Path]:
    """Folders of runs that have neither results nor an error."""
    return [run.path for run in runs_below(sweep) if not run.has_ended]


def compare_runs(sweep: Path) -> str | None:
    """Writes comparison, table of runs and, of each swept number, table and figure.

    Returns:
        The comparison as Markdown, where the files are, and the best value of each swept number;
        ``None`` if no run has finished.
    """
    finished = [folder for folder in runs_below(sweep) if folder.results_file.is_file()]
    if not finished:
        return None
    found = compare(finished)
    lines = [write_comparison(found, sweep), f"written to {sweep}/: {', '.join(FILES)}"]
    for one in sweep_curves([entry.run for entry in found]):
        one.table().write(sweep / one.stem, numbers=one.numbers())
        save(one.figure(), sweep / one.stem)
        lines += one.best()
    return "\n".join(lines)


def _name(label: MethodLabel, runs: Sequence[FinishedRun]) -> MethodLabel:
    """The base method where the weight of the regularizer is 0."""
    return label if MethodLabel.of(runs[0].config).regularizers else replace(label, regularizers=())


def _value(run: FinishedRun, metric: Metric) -> float | None:
    if metric == PGD:
        return run.held_out_percent()
    if metric in (TEST_CLEAN, TEST_PGD):
        return run.percent(run.final, metric.key.rpartition("/")[2])
    return run.last_epoch_mean(metric)


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
