"""What a sampling, or an analysis, has found, at Weights & Biases: ``logger=wandb``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from energy_at.config.build import build_loggers
from energy_at.core.files import read_json
from energy_at.evaluation.trained_model import TrainedModel
from energy_at.sampling.controls import SAMPLES
from energy_at.training.loggers.wandb import TolerantWandb

PICTURES = ("grid", "start", "nearest", "distributions")
NATURAL = ("image", "label", "prediction", "marginal", "joint")


def require_publishable(cfg: DictConfig) -> None:
    """Refuses a logger that has nothing to write here.

    Raises:
        ValueError: if there is one besides W&B.
    """
    if others := [name for name in cfg.logger if name != "wandb"]:
        raise ValueError(f"logger={others[0]}: only trainings write it; choose wandb or none")


def publish_samples(cfg: DictConfig, subject: TrainedModel, folder: Path) -> None:
    """Sends the pictures, the scores and the table of all sets, if W&B is wanted."""
    if not cfg.logger:
        return
    import wandb

    found = read_json(folder / "samples.json")
    names = list(dict.fromkeys(name for row in found["sets"].values() for name in row))
    rows = [[label, *(row.get(name) for name in names)] for label, row in found["sets"].items()]
    pictures = {name: folder / f"{name}.png" for name in PICTURES}
    scores = {name: v for name, v in found["sets"][SAMPLES].items() if v is not None}
    _send(
        _about(cfg, subject),
        folder,
        "sample",
        {f"samples/{name}": wandb.Image(str(p)) for name, p in pictures.items() if p.is_file()}
        | {f"sample/{name}": value for name, value in scores.items()}
        | {"samples/sets": wandb.Table(["set", *names], rows)},
    )


def publish_energies(cfg: DictConfig, subject: TrainedModel, folder: Path) -> None:
    """Sends a table of every image's energies for each network, if W&B is wanted."""
    if not cfg.logger:
        return
    import wandb

    files = sorted(folder.glob("samples.npz")) or sorted(folder.glob("*/samples.npz"))
    tables = {}
    for file in files:
        name = "energies" if file.parent == folder else f"energies/{file.parent.name}"
        with np.load(file) as arrays:
            tables[name] = wandb.Table(**energies_table(arrays))
    # Not inside: an analysis that is repeated replaces its folder.
    _send(_about(cfg, subject), folder.parent, "analyse", tables)


def energies_table(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """A row for each image: what it is, its energies, and those under every attack, in nats."""
    natural = [f"natural/{name}" for name in NATURAL]
    attacked = [
        name
        for name in arrays
        if name not in natural and name.partition("/")[0] not in ("natural", "path", "radii")
    ]
    columns = [*natural, *attacked]
    values = [arrays[name].tolist() for name in columns]
    return {
        "columns": [name.removeprefix("natural/") for name in columns],
        "data": [list(row) for row in zip(*values, strict=True)],
    }


def _about(cfg: DictConfig, subject: TrainedModel) -> DictConfig:
    """What was asked for, of this network: a run brings a data set and a model of its own."""
    about = cfg.copy()
    OmegaConf.set_struct(about, False)
    for group in ("dataset", "model", "threat"):
        about[group] = subject.config[group]
    about["trained"] = subject.config if cfg.checkpoint is None else None
    return about


def _send(cfg: DictConfig, folder: Path, job_type: str, values: Mapping[str, Any]) -> None:
    for logger in build_loggers(cfg, folder, job_type):
        assert isinstance(logger, TolerantWandb)
        logger.log_metrics(values)
        logger.finish()
