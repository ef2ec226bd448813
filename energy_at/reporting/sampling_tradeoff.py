"""Quality against variety: the samplings of a sweep in one table and one figure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from energy_at.core.files import read_json
from energy_at.reporting.figures import save
from energy_at.reporting.figures.results import tradeoff_figure
from energy_at.reporting.tables import Table
from energy_at.runs.folder import job_order

FILES = ("tradeoff.md", "tradeoff.csv", "tradeoff.png", "tradeoff.pdf")
REPORT = "samples.json"
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
STEPS = "sampler.steps"


@dataclass(frozen=True)
class Sampling:
    """The report of a finished sampling."""

    path: Path
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
    """All finished samplings, by their folders."""
    paths = sorted(folder.rglob(REPORT), key=job_order)
    return [Sampling(path.parent, read_json(path)) for path in paths]


def write_tradeoff(samplings: Sequence[Sampling], out: Path) -> str:
    """Writes ``FILES``: a row for each sampling and for the controls, a curve for each start.

    Returns:
        The table as Markdown.
    """
    table = tradeoff_table(samplings)
    out.mkdir(parents=True, exist_ok=True)
    text = f"{setting(samplings)}\n\n{table.markdown()}"
    (out / "tradeoff.md").write_text(text + "\n")
    (out / "tradeoff.csv").write_text(table.csv())
    save(tradeoff_figure(curves(samplings), setting(samplings)), out / "tradeoff")
    return text


def setting(samplings: Sequence[Sampling]) -> str:
    """What all samplings share: data, number, and what they were measured by."""
    reports = [sampling.report for sampling in samplings]
    said = [
        {str(report["dataset"]) for report in reports},
        {f"{report['n']} samples" for report in reports},
        {f"seed {report['seed']}" for report in reports},
        {_eyes(report) for report in reports},
    ]
    return ", ".join(found.pop() for found in said if len(found) == 1)


def tradeoff_table(samplings: Sequence[Sampling]) -> Table:
    """One row for each sampling, then the start alone of each start, then held-out images."""
    keys = differing(samplings)
    scores = [name for name in SCORES if any(s.score(name) is not None for s in samplings)]
    titles = ("images", *keys, "mean steps", "arrived %", *(SCORES[name][0] for name in scores))
    rows = [
        (
            "samples",
            *(_cell(s.chosen.get(key)) for key in keys),
            f"{s.report['mean_steps']:.1f}",
            f"{100 * s.report['stopped']['reached'] / s.report['n']:.1f}",
            *_scored(s, "samples", scores),
        )
        for s in samplings
    ]
    alone: dict[str, tuple[str, ...]] = {}
    for s in samplings:
        of_start = [k for k in keys if k in ("run", "start", "n", "seed") or k.startswith("start.")]
        cells = [_cell(s.chosen.get(key)) if key in of_start else "" for key in keys]
        alone.setdefault(
            json.dumps(cells), ("start alone", *cells, "0", "", *_scored(s, "start alone", scores))
        )
    real = "held-out images"
    last = (real, *[""] * (len(keys) + 2), *_scored(samplings[0], real, scores))
    return Table(titles, [*rows, *alone.values(), last])


def differing(samplings: Sequence[Sampling]) -> list[str]:
    """Keys of the settings in which samplings differ that have them."""
    keys = dict.fromkeys(key for sampling in samplings for key in sampling.chosen)
    differ = []
    for key in keys:
        group, dot, _ = key.partition(".")
        values: dict[str, set[str]] = {}
        for s in samplings:
            if key in s.chosen:  # another choice of the group has settings of its own
                choice = str(s.chosen[group]) if dot else ""
                values.setdefault(choice, set()).add(json.dumps(s.chosen[key]))
        if any(len(found) > 1 for found in values.values()):
            differ.append(key)
    return differ


def curves(samplings: Sequence[Sampling]) -> dict[str, list[dict[str, float]]]:
    """Points of the figure, by start, guidance and whatever else differs; steps along a curve.

    A point is the mean of its seeds; samplings that were not measured by features have none.
    """
    others = [k for k in differing(samplings) if k not in ("start", "guidance", STEPS, "seed")]
    points: dict[str, dict[int, list[dict[str, float]]]] = {}
    for s in samplings:
        names = [str(s.chosen["start"]), str(s.chosen["guidance"])]
        names += [f"{key}={_cell(s.chosen[key])}" for key in others if key in s.chosen]
        scores = {name: s.score(name) for name in ("fid", "precision", "recall", "variety")}
        if all(value is not None for value in scores.values()):
            measured = {name: float(value or 0) for name, value in scores.items()}
            points.setdefault(", ".join(names), {}).setdefault(int(s.chosen[STEPS]), []).append(
                measured
            )
    return {
        name: [{"steps": float(steps)} | _mean(seeds) for steps, seeds in sorted(by_steps.items())]
        for name, by_steps in points.items()
    }


def _mean(points: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(p[name] for p in points) / len(points) for name in points[0]}


def _scored(sampling: Sampling, of: str, names: Sequence[str]) -> list[str]:
    found = []
    for name in names:
        _, scale, form = SCORES[name]
        value = sampling.score(name, of)
        found.append("" if value is None else format(scale * value, form))
    return found


def _eyes(report: Mapping[str, Any]) -> str:
    if report["extractor"] == "none":
        return "not measured by features"
    reference = report["reference"]
    against = f"{reference['images']} {reference['split']} images"
    return f"scores by {report['extractor']} against {against}"


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
