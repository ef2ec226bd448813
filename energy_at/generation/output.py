"""The files of a sampling."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from energy_at.data import ImageSet
from energy_at.figures import save
from energy_at.generation.controls import HELD_OUT, MOST, SAMPLES, Nearest
from energy_at.generation.plan import Plan
from energy_at.generation.samples import Samples, arrays, read_columns
from energy_at.sample_figures import class_grid, distributions_figure, grid, nearest_figure
from energy_at.tables import Table

FILES = ("samples.npz", "samples.json", "samples.csv", "samples.md")
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
    ("judge", "judge %", "{:.1f}"),
    ("variety", "variety", "{:.3f}"),
    ("nearest", "nearest", "{:.3f}"),
    ("copied", "copied %", "{:.1f}"),
)


@dataclass(frozen=True)
class Found:
    """What a sampling has found.

    Attributes:
        samples: The images, and how they came about.
        energies: Of the images as they are written: ``joint`` and ``marginal``, in nats.
        descended: Energies of these images too, of the kind that was descended.
        sets: The samples and their controls.
        near: Nearest training images of the samples and of held-out images.
        rows: Scores of every set.
        facts: Everything else that is a number.
        training: The training images.
        classes: Their names.
        training_energies: Of the training images, of the kind that was descended.
    """

    samples: Samples
    energies: Mapping[str, Tensor]
    descended: Tensor
    sets: Mapping[str, ImageSet]
    near: Mapping[str, Nearest]
    rows: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, Any]
    training: ImageSet
    classes: Sequence[str]
    training_energies: Tensor


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


def write(folder: Path, about: dict[str, Any], found: Found, plan: Plan) -> str:
    """Writes all files.

    Returns:
        What is for people, as Markdown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns = {name: value.numpy() for name, value in found.energies.items()}
    part = folder / "samples.npz.part"
    with part.open("wb") as file:
        whole: dict[str, Any] = {"key": np.array(about["key"])} | arrays(found.samples) | columns
        np.savez_compressed(file, **whole)
    os.replace(part, folder / FILES[0])
    _write_classes(folder / "classes", found)
    for name, figure in _figures(found, plan, str(about["dataset"])).items():
        save(figure, folder / name)
    table = _table(found)
    text = markdown(about, found, plan, table)
    report = about | {"sets": dict(found.rows)} | dict(found.facts)
    (folder / FILES[1]).write_text(json.dumps(report, indent=2) + "\n")
    (folder / FILES[2]).write_text(_rows_csv(found))
    (folder / FILES[3]).write_text(text + "\n")
    return text


def markdown(about: Mapping[str, Any], found: Found, plan: Plan, table: Table) -> str:
    """Setting, scores, and what to make of them."""
    facts, seconds = found.facts, about["seconds"]
    stopped, reference = facts["stopped"], facts["reference"]
    ours, real = found.rows[SAMPLES], found.rows[HELD_OUT]
    energies, symbol = found.descended, SYMBOLS[plan.sampler.energy]
    earlier = about["of_earlier_attempts"]
    lines = [
        f"{plan.n} samples of {about['dataset']} from {about['network']['source']}, "
        f"seed {plan.seed}: {plan.title()}.",
        "",
        table.markdown(),
        "",
        _eyes(found, plan, reference),
        f"- stopped: {stopped['reached']} at their target energy, {stopped['cap']} at the cap; "
        f"{facts['mean_steps']:.1f} steps on average",
        f"- {symbol} of the samples: mean {energies.mean():+.2f}, 5 to 95 %: "
        f"{energies.quantile(0.05):+.2f} to {energies.quantile(0.95):+.2f} nats; "
        f"training images: mean {facts['training_energy']:+.2f}",
        f"- nearest training image, L2 in pixels: median {ours['nearest']:.3f} of the "
        f"samples, {real['nearest']:.3f} of held-out images; "
        f"{100 * ours['copied']:.1f} % of the samples are nearer than 99 % of held-out images",
        f"- seconds: {seconds['prepare']:g} to prepare, {seconds['sample']:g} to sample, "
        f"{seconds['measure']:g} to measure"
        + (
            f"; {earlier} samples are of an earlier attempt, whose time is not in it"
            * bool(earlier)
        ),
    ]
    return "\n".join(lines)


def _eyes(found: Found, plan: Plan, reference: Mapping[str, Any]) -> str:
    if plan.extractor.name == "none":
        return "- quality=none: nothing was measured by features"
    line = (
        f"- scores by {plan.extractor.name} against {reference['images']} {reference['split']} "
        f"images of {reference['dataset']}"
    )
    if plan.extractor.name != "inception-v3-compat":
        line += "; not comparable with published IS and FID, which are Inception's"
    row = found.rows[SAMPLES]
    if not row["full_rank"]:
        line += (
            "; fewer images than features: FID is far above its limit and compares only sets of "
            "this size"
        )
    return line


def _table(found: Found) -> Table:
    measured = {key for row in found.rows.values() for key, v in row.items() if v is not None}
    kept = [column for column in COLUMNS if column[0] in {"set", *measured}]
    rows = []
    for name, row in found.rows.items():
        cells = {"set": name, **row}
        cells |= {key: 100 * row[key] for key in ("judge", "copied") if row.get(key) is not None}
        rows.append(
            tuple(
                "" if cells.get(key) is None else form.format(cells[key]) for key, _, form in kept
            )
        )
    return Table(tuple(title for _, title, _ in kept), rows)


def _rows_csv(found: Found) -> str:
    names = list(dict.fromkeys(key for row in found.rows.values() for key in row))
    rows = [
        (name, *("" if row.get(key) is None else str(row[key]) for key in names))
        for name, row in found.rows.items()
    ]
    return Table(("set", *names), rows).csv()


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
