"""Samplings of a sweep: scores of each, and quality against variety."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from energy_at.core.files import read_json
from energy_at.reporting.describe import Protocol, columns_that_differ
from energy_at.reporting.figures import save
from energy_at.reporting.figures.results import tradeoff_figure
from energy_at.reporting.panels import SCORES
from energy_at.reporting.tables import Table, grouped, mean_and_error_cell
from energy_at.runs.folder import job_order

FILES = ("tradeoff.md", "tradeoff.csv", "tradeoff.tex", "tradeoff.png", "tradeoff.pdf")
OPTIONAL = (
    "protocol",
    "copied %",
    "KID",
    "variety",
    "mean steps",
    "arrived %",
    "recall",
)  # on a terminal
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
    protocols = _protocols(reports)
    settings = zip(*map(_setting, reports, protocols), strict=True)
    setting = ", ".join(parts[0] for parts in settings if len(set(parts)) == 1)
    choices = list(map(_chosen, reports, protocols))
    # each choice of a group has settings of its own
    differing = columns_that_differ(
        choices, lambda key, i: choices[i].get(key.partition(".")[0]) if "." in key else None
    )
    keys = ["protocol", *(key for key in differing if key != "protocol")]
    each = _table(reports, choices, keys, over_seeds=False)
    table = _table(reports, choices, keys, over_seeds=True) if "seed" in differing else each
    table.write(sweep / "tradeoff", above=f"{setting}\n\n", numbers=each)
    curves = _curves(reports, choices, list(differing))
    figure = tradeoff_figure(curves, setting, _controls(reports, choices))
    if figure is not None:
        save(figure, sweep / "tradeoff")
    files = [name for name in FILES if (sweep / name).is_file()]
    return f"{setting}\n\n{table.fitted(OPTIONAL)}\nwritten to {sweep}/: {', '.join(files)}"


def score_cells(sets: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Cells of a table: scores of a set of images, or the mean of several with its standard error.

    Empty where a score was not measured.
    """
    cells = []
    for name in names:
        metric, values = SCORES[name], [scores.get(name) for scores in sets]
        scaled = [None if value is None else metric.scale * value for value in values]
        cells.append(mean_and_error_cell(scaled, metric.cell_form))
    return cells


def _setting(report: Report, protocol: str) -> tuple[str, ...]:
    reference, scores = report["reference"], "not measured by features"
    if report["extractor"] != "none":
        images = f"{reference['images']} {reference['split']} images"
        scores = f"scores by {report['extractor']} against {images}"
    known = f"{report['n']} samples", f"seed {report['seed']}", scores
    return report["dataset"], *known, f"protocol {protocol}"


def _protocols(reports: Sequence[Report]) -> list[str]:
    """The protocol of each, with what all samplings of this protocol change of it."""
    own = [Protocol(**report["protocol"]) for report in reports]
    common = {
        name: set.intersection(*(set(p.changed) for p in of_name))
        for name, of_name in grouped(own, lambda p: p.name).items()
    }
    return [str(Protocol(p.name, [c for c in p.changed if c in common[p.name]])) for p in own]


def _chosen(report: Report, protocol: str) -> dict[str, str]:
    """Every setting by its key; a group's choice by the group's name."""
    found = {"protocol": protocol, "run": report["network"]["source"]}
    for group, settings in report["settings"].items():
        found[group] = settings["name"]
        found |= {f"{group}.{k}": v for k, v in settings.items() if k != "name"}
    found |= {name: report[name] for name in ("n", "seed")}
    return {key: "" if value is None else str(value) for key, value in found.items()}


def _table(
    reports: Sequence[Report],
    choices: Sequence[Mapping[str, str]],
    keys: Sequence[str],
    *,
    over_seeds: bool,
) -> Table:
    """One row for each sampling, then the start alone of each start, then held-out images.

    ``over_seeds`` one row for samplings that differ in their seed only: means, standard errors.
    """
    available = {k for r in reports for k, v in r["sets"]["samples"].items() if v is not None}
    names = [name for name in SCORES if name in available and name != "nearest"]
    keys = [key for key in keys if not (over_seeds and key == "seed")]
    of_start = ("protocol", "run", "start", "n", "seed")

    def cells(i: int, *, start: bool = False) -> tuple[str, ...]:
        return tuple(
            choices[i].get(key, "") if not start or key.partition(".")[0] in of_start else ""
            for key in keys
        )

    def row(
        label: str, key: tuple[str, ...], places: Sequence[int], set_: str, *means: str
    ) -> tuple[str, ...]:
        by_seed = {reports[i]["seed"] if over_seeds else i: reports[i] for i in places}
        count = (str(len(by_seed)),) if over_seeds else ()
        scores = score_cells([report["sets"][set_] for report in by_seed.values()], names)
        return (label, *key, *count, *means, *scores)

    order = range(len(reports))
    alike = grouped(order, cells).values() if over_seeds else [[i] for i in order]
    rows = []
    for places in alike:
        steps = [reports[i]["mean_steps"] for i in places]
        reached = [100 * reports[i]["stopped"]["reached"] / reports[i]["n"] for i in places]
        means = (mean_and_error_cell(steps), mean_and_error_cell(reached))
        rows.append(row("samples", cells(places[0]), places, "samples", *means))
    for key, places in grouped(order, lambda i: cells(i, start=True)).items():
        own = places if over_seeds else places[:1]
        rows.append(row("start alone", key, own, "start alone", "0", ""))
    same = [i for i in order if reports[i]["n"] == reports[0]["n"]] if over_seeds else [0]
    blank = ("",) * len(keys)
    rows.append(row("held-out images", blank, same, "held-out images", "", ""))
    seeds = ("seeds",) if over_seeds else ()
    columns = (SCORES[name].column for name in names)
    return Table(("images", *keys, *seeds, "mean steps", "arrived %", *columns), rows)


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
