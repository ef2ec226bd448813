"""Results of a sweep: of trainings against a swept number, of samplings as quality and variety."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from energy_at.core.files import read_json
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
from energy_at.reporting.figures.results import tradeoff_figure
from energy_at.reporting.finished_run import FinishedRun, typed_keys
from energy_at.reporting.panels import DELTA_X, DELTA_XY, PGD, TEST_CLEAN, TEST_PGD, Metric
from energy_at.reporting.tables import Table, mean_and_range, mean_cell
from energy_at.runs.folder import job_order

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

TRADEOFF_FILES = ("tradeoff.md", "tradeoff.csv", "tradeoff.png", "tradeoff.pdf")
SCORES = {  # title, factor and format
    "inception_score": ("IS", 1, ".2f"),
    "fid": ("FID", 1, ".2f"),
    "kid": ("KID", 1, ".4f"),
    "precision": ("precision", 1, ".3f"),
    "recall": ("recall", 1, ".3f"),
    "classifier_accuracy": ("classifier accuracy %", 100, ".1f"),
    "variety": ("variety", 1, ".3f"),
    "nearest": ("nearest", 1, ".3f"),
    "copied": ("copied %", 100, ".1f"),
}
DRAWN = ("fid", "precision", "recall", "variety")
STEPS = "sampler.steps"
Report = Mapping[str, Any]  # what ``samples.json`` holds


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
        positive = sorted(x for curve in self.curves.values() for x in curve if x > 0)
        with mpl.rc_context(OPEN):
            figure = Figure(figsize=(WIDTH, 5.6 + legend_height(styles)), layout="constrained")
            for axes, metric in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
                for label, curve in self.curves.items():
                    _draw(axes, curve, metric, styles[label])
                axes.set(xlabel=self.key, ylabel=metric.axis)
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
    found = []
    for key in swept:
        methods = [label.without(key) for label in labels]
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


def _name(label: MethodLabel, runs: Sequence[FinishedRun]) -> MethodLabel:
    """The base method where the weight of the regularizer is 0."""
    return label if MethodLabel.of(runs[0].config).regularizers else replace(label, regularizers=())


def _value(run: FinishedRun, metric: Metric) -> float | None:
    if metric == PGD:
        return run.held_out_percent()
    if metric in (TEST_CLEAN, TEST_PGD):
        return run.percent(run.final, metric.short.lower())
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


def samplings_below(folder: Path) -> list[Report]:
    return [read_json(path) for path in sorted(folder.rglob("samples.json"), key=job_order)]


def write_tradeoff(reports: Sequence[Report], out: Path) -> str:
    """Writes ``TRADEOFF_FILES``: a row for each sampling and control, a curve for each start.

    Returns:
        The table as Markdown.
    """
    settings = zip(*map(_setting, reports), strict=True)
    setting = ", ".join(parts[0] for parts in settings if len(set(parts)) == 1)
    table = _tradeoff_table(reports)
    text = f"{setting}\n\n{table.markdown()}"
    out.mkdir(parents=True, exist_ok=True)
    (out / "tradeoff.md").write_text(text + "\n")
    (out / "tradeoff.csv").write_text(table.csv())
    save(tradeoff_figure(_tradeoffs(reports), setting), out / "tradeoff")
    return text


def score_cells(scores: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Cells of a table; empty where a score was not measured."""
    forms = [(scores.get(name), *SCORES[name][1:]) for name in names]
    return ["" if value is None else format(factor * value, form) for value, factor, form in forms]


def _setting(report: Report) -> tuple[str, ...]:
    reference, measured = report["reference"], "not measured by features"
    if report["extractor"] != "none":
        images = f"{reference['images']} {reference['split']} images"
        measured = f"scores by {report['extractor']} against {images}"
    return report["dataset"], f"{report['n']} samples", f"seed {report['seed']}", measured


def _chosen(report: Report) -> dict[str, Any]:
    """Every setting by its key; a group's choice by the group's name."""
    found = {"run": report["network"]["source"]}
    for group, settings in report["settings"].items():
        found[group] = settings["name"]
        found |= {f"{group}.{k}": v for k, v in settings.items() if k != "name"}
    return found | {name: report[name] for name in ("n", "seed")}


def _differing(choices: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys of the settings in which samplings differ that have them."""
    values: dict[str, dict[str, set[str]]] = {}
    for chosen in choices:
        for key, value in chosen.items():
            group, dot, _ = key.partition(".")
            choice = chosen[group] if dot else ""  # each choice of a group has its own settings
            values.setdefault(key, {}).setdefault(choice, set()).add(json.dumps(value))
    return [key for key, found in values.items() if max(map(len, found.values())) > 1]


def _tradeoff_table(reports: Sequence[Report]) -> Table:
    """One row for each sampling, then the start alone of each start, then held-out images."""
    choices = [_chosen(report) for report in reports]
    keys = _differing(choices)
    measured = {k for r in reports for k, v in r["sets"]["samples"].items() if v is not None}
    names = [name for name in SCORES if name in measured and name != "nearest"]
    rows: list[tuple[str, ...]] = []
    alone: dict[tuple[str, ...], tuple[str, ...]] = {}
    for report, chosen in zip(reports, choices, strict=True):
        cells = {key: _cell(chosen.get(key)) for key in keys}
        steps, reached = report["mean_steps"], report["stopped"]["reached"] / report["n"]
        scores, controls = (report["sets"][name] for name in ("samples", "start alone"))
        ends = (f"{steps:.1f}", f"{100 * reached:.1f}", *score_cells(scores, names))
        rows.append(("samples", *cells.values(), *ends))
        of_start = ("run", "start", "n", "seed")
        start = tuple(v if k.partition(".")[0] in of_start else "" for k, v in cells.items())
        alone.setdefault(start, ("start alone", *start, "0", "", *score_cells(controls, names)))
    real = score_cells(reports[0]["sets"]["held-out images"], names)
    last = ("held-out images", *[""] * (len(keys) + 2), *real)
    titles = ("images", *keys, "mean steps", "arrived %", *(SCORES[name][0] for name in names))
    return Table(titles, [*rows, *alone.values(), last])


def _tradeoffs(reports: Sequence[Report]) -> dict[tuple[str, ...], list[dict[str, float]]]:
    """Points of the figure, by start, guidance and whatever else differs; steps along a curve.

    A point is the mean of its seeds; samplings that were not measured by features have none.
    """
    choices = [_chosen(report) for report in reports]
    others = [k for k in _differing(choices) if k not in ("start", "guidance", STEPS, "seed")]
    points: dict[tuple[str, ...], dict[int, list[Mapping[str, float]]]] = {}
    for report, chosen in zip(reports, choices, strict=True):
        scores = report["sets"]["samples"]
        if all(scores.get(key) is not None for key in DRAWN):
            names = [chosen["start"], chosen["guidance"]]
            names += [f"{key}={_cell(chosen[key])}" for key in others if key in chosen]
            by_steps = points.setdefault(tuple(names), {})
            by_steps.setdefault(int(chosen[STEPS]), []).append(scores)
    return {
        name: [
            {"steps": steps, **{key: sum(s[key] for s in seeds) / len(seeds) for key in DRAWN}}
            for steps, seeds in sorted(by_steps.items())
        ]
        for name, by_steps in points.items()
    }


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
