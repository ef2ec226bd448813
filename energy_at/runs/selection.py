"""What ``run=``, ``runs=`` and ``checkpoint=`` name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from energy_at.runs.folder import RunFolder


def require_one_named(cfg: DictConfig) -> None:
    """Raises ``ValueError`` unless one of the keys ``run``, ``runs`` and ``checkpoint`` is set."""
    keys = {
        "run": "run=FOLDER",
        "runs": "runs=[FOLDER,FOLDER]",
        "checkpoint": "checkpoint=FILE with its model= and dataset=",
    }
    offered = [key for key in keys if key in cfg]
    if len([key for key in offered if cfg[key] is not None]) != 1:
        raise ValueError(f"name one of {', '.join(keys[key] for key in offered)}")


def named_folders(names: Any) -> list[str]:
    """The folders that ``runs=FOLDER`` or ``runs=[FOLDER,FOLDER]`` names, as they were written.

    Raises:
        ValueError: if it names none.
    """
    found = [str(name) for name in names] if OmegaConf.is_list(names) else [str(names)]
    if names is None or not found:
        raise ValueError("runs=[] names no run: write runs=[FOLDER,FOLDER]")
    return found


def require_distinct(runs: Sequence[RunFolder]) -> None:
    """Raises ``ValueError`` if a run is named twice."""
    seen: set[Path] = set()
    for run in runs:
        if run.path.resolve() in seen:
            raise ValueError(f"runs=[...] names {run.path} twice: leave one out")
        seen.add(run.path.resolve())
