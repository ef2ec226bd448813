"""Samplings of a sweep: scores of each, and quality against variety."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from energy_at.core.files import read_json
from energy_at.reporting.describe import columns_that_differ
from energy_at.reporting.figures import save
from energy_at.reporting.figures.results import tradeoff_figure
from energy_at.reporting.panels import SCORES
from energy_at.reporting.tables import Table
from energy_at.runs.folder import job_order

FILES = ("tradeoff.md", "tradeoff.csv", "tradeoff.tex", "tradeoff.png", "tradeoff.pdf")
OPTIONAL = ("copied %", "KID", "variety", "mean steps", "arrived %", "recall")  # on a terminal
DRAWN = ("fid", "precision", "recall", "variety", "classifier_accuracy")
STEPS = "sampler.steps"
Report = Mapping[str, Any]  # what ``samples.json`` holds


def compare_samplings(sweep: Path) -> str | None:
    """Writes ``FILES`` of all finished samplings: a row for each, a curve for each start.

    Returns:
        The table as Markdown, and where the files are; ``None`` if no sampling has finished.
    """
    reports = [read_json(path) for path in sorted(sweep.rglob("samples.json"), key=job_order)]
    if not reports:
        return None
    settings = zip(*map(_setting, reports), strict=True)
    setting = ", ".join(parts[0] for parts in settings if len(set(parts)) == 1)
    choices = list(map(_chosen, reports))
    # each choice of a group has settings of its own
    differing = columns_that_differ(
        choices, lambda key, i: choices[i].get(key.partition(".")[0]) if "." in key else None
    )
    table = _table(reports, choices, list(differing))
    table.write(sweep / "tradeoff", above=f"{setting}\n\n")
    curves = _curves(reports, choices, list(differing))
    figure = tradeoff_figure(curves, setting, _controls(reports, choices))
    if figure is not None:
        save(figure, sweep / "tradeoff")
    files = [name for name in FILES if (sweep / name).is_file()]
    return f"{setting}\n\n{table.fitted(OPTIONAL)}\nwritten to {sweep}/: {', '.join(files)}"


def score_cells(scores: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Cells of a table; empty where a score was not measured."""
    known = [(SCORES[name], scores.get(name)) for name in names]
    return ["" if value is None else f"{m.scale * value:{m.cell_form}}" for m, value in known]


def _setting(report: Report) -> tuple[str, ...]:
    reference, scores = report["reference"], "not measured by features"
    if report["extractor"] != "none":
        images = f"{reference['images']} {reference['split']} images"
        scores = f"scores by {report['extractor']} against {images}"
    return report["dataset"], f"{report['n']} samples", f"seed {report['seed']}", scores


def _chosen(report: Report) -> dict[str, str]:
    """Every setting by its key; a group's choice by the group's name."""
    found = {"run": report["network"]["source"]}
    for group, settings in report["settings"].items():
        found[group] = settings["name"]
        found |= {f"{group}.{k}": v for k, v in settings.items() if k != "name"}
    found |= {name: report[name] for name in ("n", "seed")}
    return {key: "" if value is None else str(value) for key, value in found.items()}


def _table(
    reports: Sequence[Report], choices: Sequence[Mapping[str, str]], keys: Sequence[str]
) -> Table:
    """One row for each sampling, then the start alone of each start, then held-out images."""
    available = {k for r in reports for k, v in r["sets"]["samples"].items() if v is not None}
    names = [name for name in SCORES if name in available and name != "nearest"]
    rows: list[tuple[str, ...]] = []
    alone: dict[tuple[str, ...], tuple[str, ...]] = {}
    for report, chosen in zip(reports, choices, strict=True):
        cells = {key: chosen.get(key, "") for key in keys}
        steps, reached = report["mean_steps"], report["stopped"]["reached"] / report["n"]
        scores, controls = (report["sets"][name] for name in ("samples", "start alone"))
        ends = (f"{steps:.1f}", f"{100 * reached:.1f}", *score_cells(scores, names))
        rows.append(("samples", *cells.values(), *ends))
        of_start = ("run", "start", "n", "seed")
        start = tuple(v if k.partition(".")[0] in of_start else "" for k, v in cells.items())
        alone.setdefault(start, ("start alone", *start, "0", "", *score_cells(controls, names)))
    real = score_cells(reports[0]["sets"]["held-out images"], names)
    last = ("held-out images", *[""] * (len(keys) + 2), *real)
    titles = ("images", *keys, "mean steps", "arrived %", *(SCORES[name].column for name in names))
    return Table(titles, [*rows, *alone.values(), last])


def _curves(
    reports: Sequence[Report], choices: Sequence[Mapping[str, str]], keys: Sequence[str]
) -> dict[tuple[str, ...], list[dict[str, float]]]:
    """Points of the figure, by start, guidance and whatever else differs; steps along a curve.

    A point is the mean of its seeds, of the scores that all of them have.
    """
    others = [key for key in keys if key not in ("start", "guidance", STEPS, "seed")]
    points: dict[tuple[str, ...], dict[int, list[Mapping[str, float]]]] = {}
    for report, chosen in zip(reports, choices, strict=True):
        names = [f"{key}={chosen[key]}" for key in others if key in chosen]
        curve = points.setdefault((chosen["start"], chosen["guidance"], *names), {})
        curve.setdefault(int(chosen[STEPS]), []).append(report["sets"]["samples"])
    return {
        name: [{"steps": steps, **_means(seeds)} for steps, seeds in sorted(curve.items())]
        for name, curve in points.items()
    }


def _means(seeds: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    known = [key for key in DRAWN if all(scores.get(key) is not None for scores in seeds)]
    return {key: sum(scores[key] for scores in seeds) / len(seeds) for key in known}


def _controls(
    reports: Sequence[Report], choices: Sequence[Mapping[str, str]]
) -> list[tuple[str, str, Mapping[str, float | None]]]:
    """The start alone of each start, and held-out images."""
    starts = {c["start"]: r["sets"]["start alone"] for r, c in zip(reports, choices, strict=True)}
    alone = [("start alone", start, scores) for start, scores in starts.items()]
    return [*alone, ("held-out images", "", reports[0]["sets"]["held-out images"])]
