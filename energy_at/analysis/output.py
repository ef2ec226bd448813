"""The files of an analysis, the record of its settings, and its tables at W&B."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from omegaconf import DictConfig
from tqdm import tqdm

from energy_at import __version__
from energy_at.analysis.figures import (
    View,
    classes,
    delta_vs_eps,
    histograms,
    path,
    quiver,
    scatter,
)
from energy_at.analysis.measure import TIMES, Landscape, Natural, Shifts
from energy_at.analysis.plan import AnalysisPlan
from energy_at.analysis.tables import quantity_table
from energy_at.attacks.registry import AttackKey
from energy_at.core.files import digest
from energy_at.evaluation import Evaluator, TrainedModel, result_key
from energy_at.evaluation.publish import publish
from energy_at.reporting.figures import save
from energy_at.runs.folder import RunFolder, folder_names

PANELS = 4  # runs that fit side by side
ARRAYS = {
    "natural/{column}": "the images: " + ", ".join(field.name for field in fields(Natural)),
    "ATTACK/{column}": "under an attack: " + ", ".join(field.name for field in fields(Shifts)),
    "path/t": "t of x_t = x + t (x* - x), clamped to pixels",
    "path/positions": "images of the paths, as entries of natural/",
    "path/ATTACK/marginal, joint": "E(x_t), E(x_t, y); a row for each image, a column for each t",
    "radii/eps": "radii of the PGD sweep, in units of the pixel range",
    "radii/positions": "images of the sweep, as entries of natural/",
    "radii/delta_marginal, delta_joint": "dE(x), dE(x, y); a column for each radius",
}


def describe(
    plan: AnalysisPlan,
    models: Mapping[str, TrainedModel],
    evaluators: Mapping[str, Evaluator],
) -> dict[str, Any]:
    """The settings of an analysis, and the key of its result."""
    settings = {
        "split": plan.split,
        "subset": plan.subset,
        "subset_seed": plan.subset_seed,
        "norm": plan.norm,
        "eps": plan.ball.eps,
        "eps_text": plan.eps,
        "attacks": plan.labels,
        "steps": plan.steps,
        "iterations": plan.iterations,
        "queries": plan.queries,
        "radii": [ball.eps for ball in plan.radii],
        "seed": plan.seed,
    }
    networks, keys = [], []
    for name, model in models.items():
        images, indices = evaluators[name].images, list(evaluators[name].numbers or ())
        keys.append(result_key(model, images, {**settings, "indices": indices}))
        networks.append(
            {
                "name": name,
                "source": model.source,
                "which": model.which,
                "sha256": model.weights_digest,
                "device": model.device.type,
                "dataset": model.config.dataset.name,
                "images": len(images),
                "of": len(getattr(model.data, plan.split)),
                "places_sha256": digest(indices),
            }
        )
    return {
        "key": digest(keys),
        "networks": networks,
        **settings,
        "precision": "fp32, energies fp64",
        "versions": {"energy_at": __version__, "torch": torch.__version__},
        "samples.npz": ARRAYS,
    }


def subfolders(models: Mapping[str, TrainedModel]) -> dict[str, str]:
    """A folder name for each of several runs."""
    places = folder_names([RunFolder(model.folder) for model in models.values()])
    names = [re.sub(r"[^\w.+=-]+", "_", place).strip("._") or "run" for place in places]
    unique = [n if names.count(n) == 1 else f"{i}_{n}" for i, n in enumerate(names, 1)]
    return dict(zip(models, unique, strict=True))


def write_tables(folder: Path, text: str, view: View, record: Mapping[str, Any]) -> None:
    """Tables and settings of one run, or of several together."""
    (folder / "table.md").write_text(text + "\n", encoding="utf-8")
    (folder / "table.csv").write_text(quantity_table(view.runs).csv(), encoding="utf-8")
    (folder / "settings.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def draw(folder: Path, view: View, sweep: str, *, progress: bool = False) -> None:
    """Every figure, as PNG and PDF."""
    every = figures(view, sweep)
    for name, figure in tqdm(every, desc="figures", leave=False, disable=not progress):
        save(figure, folder / name)


def figures(view: View, sweep: str) -> Iterator[tuple[str, Figure]]:
    """Figures by name, drawn one after the other.

    Args:
        view: Runs and attacks; of more runs than ``PANELS`` only the sweep is drawn.
        sweep: Label of the attack of the sweep.
    """
    yield "delta_vs_eps", delta_vs_eps(view, sweep)
    if len(view.runs) > PANELS:
        return
    yield "histograms", histograms(view)
    yield "histograms_joint", histograms(view, joint=True)
    yield "path", path(view)
    yield "classes", classes(view)
    for attack in view.labels:
        yield f"scatter_{attack}", scatter(view, attack)
        yield f"quiver_{attack}", quiver(view, attack)


def write_samples(file: Path, landscape: Landscape) -> None:
    """Every number of every image, in the arrays that ``ARRAYS`` describes."""
    arrays: dict[str, Any] = _image_columns(landscape, natural="natural/")
    arrays["path/t"] = np.array(TIMES)
    for attack, paths in landscape.paths.items():
        arrays["path/positions"] = paths.positions
        arrays[f"path/{AttackKey(attack)}/marginal"] = paths.marginal
        arrays[f"path/{AttackKey(attack)}/joint"] = paths.joint
    for field in fields(landscape.radii):
        arrays[f"radii/{field.name}"] = getattr(landscape.radii, field.name)
    np.savez_compressed(file, **arrays)


def publish_energies(
    cfg: DictConfig,
    models: Mapping[str, TrainedModel],
    landscapes: Mapping[str, Landscape],
    folder: Path,
) -> None:
    """Sends a table with a row for each image of each network, if ``logger=wandb``."""
    if not cfg.logger:
        return
    import wandb

    tables = {}
    for name, below in subfolders(models).items():
        columns = _image_columns(landscapes[name])
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        tables["energies" if len(models) == 1 else f"energies/{below}"] = table
    # next to the folder, which holds one result and nothing else
    publish(cfg, next(iter(models.values())), folder.parent, "analyse", tables)


def _image_columns(landscape: Landscape, natural: str = "") -> dict[str, NDArray[Any]]:
    """Columns with an entry for each image: natural, then under each attack (``pgd/joint``)."""
    groups: dict[str, Natural | Shifts] = {natural: landscape.natural}
    groups |= {f"{AttackKey(name)}/": shifts for name, shifts in landscape.attacks.items()}
    return {
        f"{prefix}{field.name}": getattr(columns, field.name)
        for prefix, columns in groups.items()
        for field in fields(columns)
    }
