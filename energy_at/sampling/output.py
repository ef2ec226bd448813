"""The files of a sampling: images, scores, tables, figures; and its scores at W&B."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from energy_at.core.files import read_json
from energy_at.evaluation import TrainedModel
from energy_at.evaluation.publish import publish
from energy_at.reporting.figures import save
from energy_at.reporting.figures.results import (
    class_grid,
    distributions_figure,
    grid,
    nearest_figure,
)
from energy_at.reporting.tables import Table
from energy_at.runs.environment import environment
from energy_at.sampling.langevin import Stop
from energy_at.sampling.prepare import SamplingPlan
from energy_at.sampling.score import HELD_OUT, MOST, SAMPLES, SampleScores

FILES = ("samples.npz", "samples.json", "samples.csv", "samples.md")
FIGURES = ("grid", "start", "nearest", "distributions")
SIDE_BY_SIDE = 12
PER_CLASS = 100
SYMBOLS = {
    "joint": "E(x, y)",
    "marginal": "E(x)",
    "conditional": "E(x, y) - E(x)",
    "cross_entropy": "cross-entropy",
}
COLUMNS = (
    ("set", "set", "{}"),
    ("images", "images", "{}"),
    ("inception_score", "IS", "{:.2f}"),
    ("fid", "FID", "{:.2f}"),
    ("kid", "KID", "{:.4f}"),
    ("precision", "precision", "{:.3f}"),
    ("recall", "recall", "{:.3f}"),
    ("classifier_accuracy", "classifier accuracy %", "{:.1f}"),
    ("variety", "variety", "{:.3f}"),
    ("nearest", "nearest", "{:.3f}"),
    ("copied", "copied %", "{:.1f}"),
)


@dataclass(frozen=True)
class Attempt:
    """How the samples were finished; it does not change them.

    Attributes:
        key: Of the sampling.
        batch_size: Samples that moved at once.
        seconds: Wall-clock seconds of each stage.
        earlier: Samples that an earlier attempt had finished.
    """

    key: str
    batch_size: int
    seconds: Mapping[str, float]
    earlier: int


def write_files(
    folder: Path, model: TrainedModel, plan: SamplingPlan, scores: SampleScores, attempt: Attempt
) -> str:
    """Writes all files to an existing folder.

    Returns:
        Settings, scores and remarks as Markdown.
    """
    report = _describe(model, plan, attempt) | _results(model, plan, scores)
    text = markdown(report, scores, plan)
    _write_samples(folder / FILES[0], scores, attempt.key)
    _write_classes(folder / "classes", scores)
    for name, figure in _figures(scores, plan, str(report["dataset"])).items():
        save(figure, folder / name)
    (folder / FILES[1]).write_text(json.dumps(report, indent=2) + "\n")
    (folder / FILES[2]).write_text(rows_csv(scores))
    (folder / FILES[3]).write_text(text + "\n")
    return text


def publish_samples(cfg: DictConfig, model: TrainedModel, folder: Path) -> None:
    """Sends figures, scores and the table of all sets, if ``logger=wandb``."""
    if not cfg.logger:
        return
    import wandb

    sets = read_json(folder / FILES[1])["sets"]
    names = list(dict.fromkeys(name for row in sets.values() for name in row))
    rows = [[label, *(row.get(name) for name in names)] for label, row in sets.items()]
    pictures = {name: folder / f"{name}.png" for name in FIGURES}
    scores = {name: value for name, value in sets[SAMPLES].items() if value is not None}
    publish(
        cfg,
        model,
        folder,
        "sample",
        {f"samples/{name}": wandb.Image(str(p)) for name, p in pictures.items() if p.is_file()}
        | {f"sample/{name}": value for name, value in scores.items()}
        | {"samples/sets": wandb.Table(["set", *names], rows)},
    )


def _describe(model: TrainedModel, plan: SamplingPlan, attempt: Attempt) -> dict[str, Any]:
    """Settings, network and environment."""
    return {
        "key": attempt.key,
        "network": {
            "source": model.source,
            "which": model.which,
            "sha256": model.weights_digest,
        },
        "dataset": model.config.dataset.name,
        "fitted_to": {"split": "train", "images": len(model.data.train)},
        "settings": dict(plan.settings),
        "config": {
            name: OmegaConf.to_container(model.config[name], resolve=True)
            for name in ("dataset", "model")
        },
        "n": plan.n,
        "seed": plan.seed,
        "batch_size": attempt.batch_size,
        "device": str(model.device),
        "seconds": {name: round(value, 1) for name, value in attempt.seconds.items()},
        "of_earlier_attempts": attempt.earlier,
        "environment": environment(),
    }


def _results(model: TrainedModel, plan: SamplingPlan, scores: SampleScores) -> dict[str, Any]:
    """Scores of all sets, and statistics of the samples."""
    samples = scores.samples
    return {
        "sets": dict(scores.rows),
        "stopped": {stop.name.lower(): int((samples.stop == stop).sum()) for stop in Stop},
        "mean_steps": float(samples.steps.float().mean()),
        "training_energy": float(scores.training_energies.mean()),
        "reference": {
            "dataset": model.config.dataset.name,
            "split": plan.reference,
            "images": len(getattr(model.data, plan.reference)),
        },
        "extractor": plan.extractor.name,
    }


def _write_samples(path: Path, scores: SampleScores, key: str) -> None:
    energies = {name: value.numpy() for name, value in scores.energies.items()}
    arrays: dict[str, Any] = {"key": np.array(key), **scores.samples.arrays(), **energies}
    np.savez_compressed(path, **arrays)


def _write_classes(folder: Path, scores: SampleScores) -> None:
    """One picture for each class, of up to ``PER_CLASS`` images."""
    folder.mkdir(exist_ok=True)
    images: Any = scores.samples.arrays()["pixels"]
    for label, name in enumerate(scores.classes):
        of_class = images[scores.samples.label.numpy() == label][:PER_CLASS]
        if len(of_class):
            class_grid(of_class).save(folder / f"{label:03d}-{name}.png")


def _figures(scores: SampleScores, plan: SamplingPlan, dataset: str) -> dict[str, Figure]:
    samples = scores.samples.arrays()
    title = f"{dataset}: {plan.title()}"
    figures = {
        name: grid(samples[column], samples["label"], scores.classes, plan.shown)
        for name, column in (("grid", "pixels"), ("start", "start"))
    }
    figures["nearest"] = nearest_figure(_pairs(scores, plan), title)
    figures["distributions"] = distributions_figure(
        {name: scores.near[name].distances.double().numpy() for name in (SAMPLES, HELD_OUT)},
        {
            "samples": scores.descended.double().numpy(),
            "training images": scores.training_energies.double().numpy(),
        },
        SYMBOLS[plan.sampler.energy],
        title,
    )
    return figures


def _pairs(scores: SampleScores, plan: SamplingPlan) -> list[tuple[Any, Any, float]]:
    """Samples drawn at random, and their nearest training images."""
    generator = torch.Generator().manual_seed(plan.seed)
    few = torch.randperm(min(len(scores.samples), MOST), generator=generator)[:SIDE_BY_SIDE]
    near = scores.near[SAMPLES]
    return [
        (
            scores.samples.pixels[i].permute(1, 2, 0).numpy(),
            scores.training.pixels[near.places[i]].permute(1, 2, 0).numpy(),
            float(near.distances[i]),
        )
        for i in few.tolist()
    ]


def markdown(report: Mapping[str, Any], scores: SampleScores, plan: SamplingPlan) -> str:
    """Settings, scores, and how to read them."""
    stopped, seconds = report["stopped"], report["seconds"]
    ours, real = scores.rows[SAMPLES], scores.rows[HELD_OUT]
    energies, symbol = scores.descended, SYMBOLS[plan.sampler.energy]
    earlier = report["of_earlier_attempts"]
    lines = [
        f"{plan.n} samples of {report['dataset']} from {report['network']['source']}, "
        f"seed {plan.seed}: {plan.title()}.",
        "",
        _table(scores).markdown(),
        "",
        _extractor_line(scores, plan, report["reference"]),
        f"- stopped: {stopped['reached']} at their target energy, {stopped['cap']} at the cap; "
        f"{report['mean_steps']:.1f} steps on average",
        f"- {symbol} of the samples: mean {energies.mean():+.2f}, 5 to 95 %: "
        f"{energies.quantile(0.05):+.2f} to {energies.quantile(0.95):+.2f} nats; "
        f"training images: mean {report['training_energy']:+.2f}",
        f"- nearest training image, L2 in pixels: median {ours['nearest']:.3f} of the "
        f"samples, {real['nearest']:.3f} of held-out images; "
        f"{100 * ours['copied']:.1f} % of the samples are nearer than 99 % of held-out images",
        f"- seconds: {seconds['prepare']:g} to prepare, {seconds['sample']:g} to sample, "
        f"{seconds['measure']:g} to measure"
        + (f"; without the time of {earlier} samples from an earlier attempt" * bool(earlier)),
    ]
    return "\n".join(lines)


def _extractor_line(scores: SampleScores, plan: SamplingPlan, reference: Mapping[str, Any]) -> str:
    if plan.extractor.name == "none":
        return "- quality=none: no scores from features"
    line = (
        f"- scores by {plan.extractor.name} against {reference['images']} {reference['split']} "
        f"images of {reference['dataset']}"
    )
    if plan.extractor.name != "inception-v3-compat":
        line += "; not comparable with published IS and FID, which use Inception"
    row = scores.rows[SAMPLES]
    if not row["full_rank"]:
        line += (
            "; fewer images than features: FID is far above its limit and compares only sets of "
            "this size"
        )
    return line


def _table(scores: SampleScores) -> Table:
    available = {key for row in scores.rows.values() for key, v in row.items() if v is not None}
    columns = [column for column in COLUMNS if column[0] in {"set", *available}]
    rows = []
    for name, row in scores.rows.items():
        cells = {"set": name, **row}
        cells |= {
            key: 100 * row[key]
            for key in ("classifier_accuracy", "copied")
            if row.get(key) is not None
        }
        rows.append(
            tuple(
                "" if cells.get(key) is None else form.format(cells[key])
                for key, _, form in columns
            )
        )
    return Table(tuple(title for _, title, _ in columns), rows)


def rows_csv(scores: SampleScores) -> str:
    """Scores of every set, a row each."""
    names = list(dict.fromkeys(key for row in scores.rows.values() for key in row))
    rows = [
        (name, *("" if row.get(key) is None else str(row[key]) for key in names))
        for name, row in scores.rows.items()
    ]
    return Table(("set", *names), rows).csv()
