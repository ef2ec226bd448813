"""Results of a sweep: of trainings against a swept number, of samplings as quality and variety."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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
SCORES = {
    "inception_score": ("IS", 1, ".2f"),
    "fid": ("FID", 1, ".2f"),
    "kid": ("KID", 1, ".4f"),
    "precision": ("precision", 1, ".3f"),
    "recall": ("recall", 1, ".3f"),
    "classifier_accuracy": ("classifier accuracy %", 100, ".1f"),
    "variety": ("variety", 1, ".3f"),
    "copied": ("copied %", 100, ".1f"),
}
DRAWN = ("fid", "precision", "recall", "variety")
STEPS = "sampler.steps"


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


@dataclass(frozen=True)
class Sampling:
    """The report of a finished sampling, as ``samples.json`` holds it."""

    report: Mapping[str, Any]

    @cached_property
    def chosen(self) -> dict[str, Any]:
        """Every setting by its key; a group's choice by the group's name."""
        found: dict[str, Any] = {}
        for group, settings in self.report["settings"].items():
            found[group] = settings["name"]
            found |= {f"{group}.{k}": v for k, v in settings.items() if k != "name"}
        named = {"run": self.report["network"]["source"]}
        return named | found | {name: self.report[name] for name in ("n", "seed")}

    def score(self, name: str, of: str = "samples") -> float | None:
        """A score of one of its sets; ``None`` if it was not measured."""
        value = self.report["sets"][of].get(name)
        return None if value is None else float(value)


def samplings_below(folder: Path) -> list[Sampling]:
    return [Sampling(read_json(p)) for p in sorted(folder.rglob("samples.json"), key=job_order)]


def write_tradeoff(samplings: Sequence[Sampling], out: Path) -> str:
    """Writes ``TRADEOFF_FILES``: a row for each sampling and the controls, a curve for each start.

    Returns:
        The table as Markdown.
    """
    table, title = tradeoff_table(samplings), _shared(samplings)
    out.mkdir(parents=True, exist_ok=True)
    text = f"{title}\n\n{table.markdown()}"
    (out / "tradeoff.md").write_text(text + "\n")
    (out / "tradeoff.csv").write_text(table.csv())
    save(tradeoff_figure(_tradeoffs(samplings), title), out / "tradeoff")
    return text


def tradeoff_table(samplings: Sequence[Sampling]) -> Table:
    """One row for each sampling, then the start alone of each start, then held-out images."""
    keys = _differing(samplings)
    of_start = [k for k in keys if k in ("run", "start", "n", "seed") or k.startswith("start.")]
    scores = [name for name in SCORES if any(s.score(name) is not None for s in samplings)]

    def row(
        images: str, s: Sampling, known: Collection[str], steps: str = "", arrived: str = ""
    ) -> dict[str, str]:
        found = {"images": images}
        found |= {key: _cell(s.chosen.get(key)) if key in known else "" for key in keys}
        found |= {"mean steps": steps, "arrived %": arrived}
        for name in scores:
            title, scale, form = SCORES[name]
            value = s.score(name, images)
            found[title] = "" if value is None else format(scale * value, form)
        return found

    rows = []
    for s in samplings:
        arrived = 100 * s.report["stopped"]["reached"] / s.report["n"]
        rows.append(row("samples", s, keys, f"{s.report['mean_steps']:.1f}", f"{arrived:.1f}"))
    alone: dict[tuple[str, ...], dict[str, str]] = {}
    for s in samplings:
        one = row("start alone", s, of_start, "0")
        alone.setdefault(tuple(one[key] for key in keys), one)
    return Table.of([*rows, *alone.values(), row("held-out images", samplings[0], ())])


def _differing(samplings: Sequence[Sampling]) -> list[str]:
    """Keys of the settings in which samplings differ that have them."""
    differ = []
    for key in dict.fromkeys(key for sampling in samplings for key in sampling.chosen):
        group, dot, _ = key.partition(".")
        values: dict[str, set[str]] = {}
        for s in samplings:
            if key in s.chosen:  # another choice of the group has settings of its own
                choice = str(s.chosen[group]) if dot else ""
                values.setdefault(choice, set()).add(json.dumps(s.chosen[key]))
        if any(len(found) > 1 for found in values.values()):
            differ.append(key)
    return differ


def _tradeoffs(samplings: Sequence[Sampling]) -> dict[str, list[dict[str, float]]]:
    """Points of the figure, by start, guidance and whatever else differs; steps along a curve.

    A point is the mean of its seeds; samplings that were not measured by features have none.
    """
    others = [k for k in _differing(samplings) if k not in ("start", "guidance", STEPS, "seed")]
    points: dict[str, dict[int, list[dict[str, float]]]] = {}
    for s in samplings:
        names = [str(s.chosen["start"]), str(s.chosen["guidance"])]
        names += [f"{key}={_cell(s.chosen[key])}" for key in others if key in s.chosen]
        scores = {name: value for name in DRAWN if (value := s.score(name)) is not None}
        if len(scores) == len(DRAWN):
            by_steps = points.setdefault(", ".join(names), {})
            by_steps.setdefault(int(s.chosen[STEPS]), []).append(scores)
    return {
        name: [
            {"steps": float(steps)} | {k: sum(p[k] for p in seeds) / len(seeds) for k in DRAWN}
            for steps, seeds in sorted(by_steps.items())
        ]
        for name, by_steps in points.items()
    }


def _shared(samplings: Sequence[Sampling]) -> str:
    """What all samplings share: data, number, and what they were measured by."""
    reports = [sampling.report for sampling in samplings]
    found = [
        {str(report["dataset"]) for report in reports},
        {f"{report['n']} samples" for report in reports},
        {f"seed {report['seed']}" for report in reports},
        {_extractor(report) for report in reports},
    ]
    return ", ".join(values.pop() for values in found if len(values) == 1)


def _extractor(report: Mapping[str, Any]) -> str:
    if report["extractor"] == "none":
        return "not measured by features"
    reference = report["reference"]
    against = f"{reference['images']} {reference['split']} images"
    return f"scores by {report['extractor']} against {against}"


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
