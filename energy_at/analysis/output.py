"""The files of an analysis: they appear together, or not at all."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from omegaconf import DictConfig
from tqdm import tqdm

from energy_at.analysis.figures import (
    View,
    classes,
    delta_vs_eps,
    histograms,
    path,
    quiver,
    scatter,
)
from energy_at.analysis.landscape import TIMES, Landscape, Natural, Shifts
from energy_at.analysis.tables import by_quantity
from energy_at.core import files
from energy_at.core.files import read_json
from energy_at.evaluation.publish import publish
from energy_at.evaluation.trained_model import TrainedModel
from energy_at.reporting.figures.style import save

PANELS = 4  # runs that have room side by side
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


@contextmanager
def staged(out: Path, key: str) -> Iterator[Path]:
    """A temporary folder whose files move to ``out`` if nothing is raised.

    Raises:
        ValueError: if ``out`` holds anything but an analysis of the same key.
    """
    _require_free(out, key)
    with files.staged(out) as part:
        yield part


def write(folder: Path, text: str, view: View, settings: Mapping[str, Any]) -> None:
    """Tables and settings of one run, or of several side by side."""
    (folder / "table.md").write_text(text + "\n", encoding="utf-8")
    (folder / "table.csv").write_text(by_quantity(view.runs).csv(), encoding="utf-8")
    (folder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def draw(folder: Path, view: View, sweep: str, *, progress: bool = False) -> None:
    """Every figure, as PNG and PDF."""
    every = figures(view, sweep)
    for name, figure in tqdm(every, desc="figures", leave=False, disable=not progress):
        save(figure, folder / name)


def figures(view: View, sweep: str) -> Iterator[tuple[str, Figure]]:
    """Figures by name, one after the other.

    Args:
        view: What they show; of more runs than ``PANELS`` only the sweep has room for all.
        sweep: Name of the attack of the sweep.
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


def write_samples(file: Path, found: Landscape) -> None:
    """Every number of every image, in the arrays that ``ARRAYS`` describes."""
    arrays: dict[str, NDArray[Any]] = {}
    groups: dict[str, Natural | Shifts] = {"natural": found.natural, **found.attacks}
    for group, columns in groups.items():
        for field in fields(columns):
            arrays[f"{group}/{field.name}"] = getattr(columns, field.name)
    arrays["path/t"] = np.array(TIMES)
    for attack, paths in found.paths.items():
        arrays["path/positions"] = paths.positions
        arrays[f"path/{attack}/marginal"] = paths.marginal
        arrays[f"path/{attack}/joint"] = paths.joint
    for field in fields(found.radii):
        arrays[f"radii/{field.name}"] = getattr(found.radii, field.name)
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def publish_energies(cfg: DictConfig, subject: TrainedModel, folder: Path) -> None:
    """Sends a table of every image's energies for each network, if ``logger=wandb``."""
    if not cfg.logger:
        return
    import wandb

    files = sorted(folder.glob("samples.npz")) or sorted(folder.glob("*/samples.npz"))
    tables = {}
    for file in files:
        name = "energies" if file.parent == folder else f"energies/{file.parent.name}"
        with np.load(file) as arrays:
            tables[name] = wandb.Table(**_energies_table(arrays))
    # Not inside: an analysis that is repeated replaces its folder.
    publish(cfg, subject, folder.parent, "analyse", tables)


def _energies_table(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """A row for each image: what it is, its energies, and those under every attack, in nats."""
    natural = [f"natural/{field.name}" for field in fields(Natural)]
    attacked = [
        name for name in arrays if name.partition("/")[0] not in ("natural", "path", "radii")
    ]
    columns = [*natural, *attacked]
    values = [arrays[name].tolist() for name in columns]
    return {
        "columns": [name.removeprefix("natural/") for name in columns],
        "data": [list(row) for row in zip(*values, strict=True)],
    }


def _require_free(out: Path, key: str) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"out={out} is a file: name a folder")
    if not any(out.iterdir()):
        return
    settings = out / "settings.json"
    if not settings.is_file():
        raise ValueError(f"{out} holds other files: choose another out=FOLDER")
    if read_json(settings).get("key") != key:
        raise ValueError(f"{out} holds an analysis of other settings: choose another out=FOLDER")
