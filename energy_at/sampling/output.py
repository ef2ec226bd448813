"""The files of a sampling."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from energy_at.core.files import read_json, replacing
from energy_at.evaluation.publish import publish
from energy_at.evaluation.trained_model import TrainedModel
from energy_at.reporting.figures.samples import (
    class_grid,
    distributions_figure,
    grid,
    nearest_figure,
)
from energy_at.reporting.figures.style import save
from energy_at.runs.environment import environment
from energy_at.sampling import Stop
from energy_at.sampling.controls import HELD_OUT, MOST, SAMPLES
from energy_at.sampling.plan import Plan
from energy_at.sampling.samples import Samples, arrays, read_columns
from energy_at.sampling.summary import SYMBOLS, Found, markdown, rows_csv

FILES = ("samples.npz", "samples.json", "samples.csv", "samples.md")
FIGURES = ("grid", "start", "nearest", "distributions")
SIDE_BY_SIDE = 12
PER_CLASS = 100


@dataclass(frozen=True)
class Attempt:
    """How the samples came to be finished; nothing of it changes them.

    Attributes:
        key: Of everything that does.
        batch_size: Samples that moved at once.
        seconds: That each stage took.
        earlier: Samples that an attempt before had finished.
    """

    key: str
    batch_size: int
    seconds: Mapping[str, float]
    earlier: int


def is_writable(folder: Path) -> bool:
    """Whether files can be written to a folder, which need not be there yet."""
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return above.is_dir() and os.access(above, os.W_OK | os.X_OK)


def finished_before(folder: Path, key: str) -> Samples | None:
    """Samples that an earlier call has finished; ``None`` if there are none.

    Raises:
        ValueError: if the folder holds other samples, or damaged ones.
    """
    path = folder / FILES[0]
    if not path.is_file():
        return None
    found = read_columns(path)
    if found is None:
        raise ValueError(f"{path} is damaged: remove it, or choose another out=FOLDER")
    if str(found["key"]) != key:
        raise ValueError(f"{folder} holds other samples: choose another out=FOLDER")
    columns = [torch.from_numpy(found[f.name]) for f in fields(Samples)]
    images = {1: columns[1], 2: columns[2]}
    for place, image in images.items():
        columns[place] = image.permute(0, 3, 1, 2).contiguous()
    return Samples(*columns)


def write(folder: Path, subject: TrainedModel, plan: Plan, found: Found, attempt: Attempt) -> str:
    """Writes all files.

    Returns:
        What is for people, as Markdown.
    """
    report = _about(subject, plan, attempt) | _facts(subject, plan, found)
    text = markdown(report, found, plan)
    folder.mkdir(parents=True, exist_ok=True)
    _write_samples(folder / FILES[0], found, attempt.key)
    _write_classes(folder / "classes", found)
    for name, figure in _figures(found, plan, str(report["dataset"])).items():
        save(figure, folder / name)
    (folder / FILES[1]).write_text(json.dumps(report, indent=2) + "\n")
    (folder / FILES[2]).write_text(rows_csv(found))
    (folder / FILES[3]).write_text(text + "\n")
    return text


def publish_samples(cfg: DictConfig, subject: TrainedModel, folder: Path) -> None:
    """Sends figures, scores and the table of all sets, if ``logger=wandb``."""
    if not cfg.logger:
        return
    import wandb

    found = read_json(folder / FILES[1])["sets"]
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    rows = [[label, *(row.get(name) for name in names)] for label, row in found.items()]
    pictures = {name: folder / f"{name}.png" for name in FIGURES}
    scores = {name: value for name, value in found[SAMPLES].items() if value is not None}
    publish(
        cfg,
        subject,
        folder,
        "sample",
        {f"samples/{name}": wandb.Image(str(p)) for name, p in pictures.items() if p.is_file()}
        | {f"sample/{name}": value for name, value in scores.items()}
        | {"samples/sets": wandb.Table(["set", *names], rows)},
    )


def _about(subject: TrainedModel, plan: Plan, attempt: Attempt) -> dict[str, Any]:
    """What was asked for, of whom, and under which circumstances."""
    return {
        "key": attempt.key,
        "network": {
            "source": subject.source,
            "which": subject.which,
            "sha256": subject.weights_digest,
        },
        "dataset": subject.config.dataset.name,
        "fitted_to": {"split": "train", "images": len(subject.data.train)},
        "settings": dict(plan.settings),
        "config": {
            name: OmegaConf.to_container(subject.config[name], resolve=True)
            for name in ("dataset", "model")
        },
        "n": plan.n,
        "seed": plan.seed,
        "batch_size": attempt.batch_size,
        "device": str(subject.device),
        "seconds": {name: round(value, 1) for name, value in attempt.seconds.items()},
        "of_earlier_attempts": attempt.earlier,
        "environment": environment(),
    }


def _facts(subject: TrainedModel, plan: Plan, found: Found) -> dict[str, Any]:
    """What was found."""
    samples = found.samples
    return {
        "sets": dict(found.rows),
        "stopped": {stop.name.lower(): int((samples.stop == stop).sum()) for stop in Stop},
        "mean_steps": float(samples.steps.float().mean()),
        "training_energy": float(found.training_energies.mean()),
        "reference": {
            "dataset": subject.config.dataset.name,
            "split": plan.reference,
            "images": len(getattr(subject.data, plan.reference)),
        },
        "extractor": plan.extractor.name,
    }


def _write_samples(path: Path, found: Found, key: str) -> None:
    columns = {name: value.numpy() for name, value in found.energies.items()}
    whole: dict[str, Any] = {"key": np.array(key)} | arrays(found.samples) | columns
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **whole)


def _write_classes(folder: Path, found: Found) -> None:
    """One picture for each class, of up to ``PER_CLASS`` images."""
    folder.mkdir(exist_ok=True)
    images: Any = arrays(found.samples)["pixels"]
    for label, name in enumerate(found.classes):
        of_class = images[found.samples.label.numpy() == label][:PER_CLASS]
        if len(of_class):
            class_grid(of_class).save(folder / f"{label:03d}-{name}.png")


def _figures(found: Found, plan: Plan, dataset: str) -> dict[str, Figure]:
    samples = arrays(found.samples)
    labels: Any = samples["label"]
    title = f"{dataset}: {plan.title()}"
    figures = {
        "grid": grid(samples["pixels"], labels, found.classes, plan.shown),  # type: ignore[arg-type]
        "start": grid(samples["start"], labels, found.classes, plan.shown),  # type: ignore[arg-type]
    }
    figures["nearest"] = nearest_figure(_pairs(found, plan), title)
    figures["distributions"] = distributions_figure(
        {name: found.near[name].distances.double().numpy() for name in (SAMPLES, HELD_OUT)},
        {
            "samples": found.descended.double().numpy(),
            "training images": found.training_energies.double().numpy(),
        },
        SYMBOLS[plan.sampler.energy],
        title,
    )
    return figures


def _pairs(found: Found, plan: Plan) -> list[tuple[Any, Any, float]]:
    """Samples drawn at random, and their nearest training images."""
    generator = torch.Generator().manual_seed(plan.seed)
    few = torch.randperm(min(len(found.samples), MOST), generator=generator)[:SIDE_BY_SIDE]
    near = found.near[SAMPLES]
    return [
        (
            found.samples.pixels[i].permute(1, 2, 0).numpy(),
            found.training.pixels[near.places[i]].permute(1, 2, 0).numpy(),
            float(near.distances[i]),
        )
        for i in few.tolist()
    ]
