"""What ``run=``, ``runs=``, ``checkpoint=``, ``resume=`` and ``init=`` name, without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from energy_at.core.rules import as_typed
from energy_at.runs.folder import RunFolder, runs_in

OF_RUN = ("dataset", "model", "normalize", "source", "threat", "training")  # brought by run=
CHANGEABLE = ("trainer.", "callbacks.progress.", "evaluation.")  # by resume=


def require_named(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Checks what a command on networks, or one that resumes, is to open.

    Raises:
        FileNotFoundError: if a run or a file does not exist.
        ValueError: unless exactly one key is set, or if an override changes what a run fixes, or
            if a run is damaged or not trusted.
    """
    if cfg.get("init") is not None:
        initial_file(cfg)
    if cfg.get("resume") is not None:
        require_resumable(str(cfg.resume), overrides).config()
    if "checkpoint" not in cfg:
        return
    require_one_named(cfg)
    if cfg.checkpoint is not None:
        _require_file(str(cfg.checkpoint))
        return
    for name in named_folders(cfg.runs) if cfg.run is None else [str(cfg.run)]:
        runs = [RunFolder.open(name)] if cfg.run is not None else runs_in(name)
        for run in runs:
            _require_own_groups(run, overrides)
            run.config()


def initial_file(cfg: DictConfig) -> Path:
    """The weights that ``init=`` names; a run stands for its last checkpoint.

    Raises:
        FileNotFoundError: if the file or the run does not exist.
        ValueError: if the run is damaged or not trusted.
    """
    path = Path(str(cfg.init)).expanduser()
    if path.is_dir():
        run = RunFolder.open(path)
        run.config()
        path = run.checkpoint("last")
    if not path.is_file():
        raise FileNotFoundError(f"init={cfg.init} must be a file of weights or the folder of a run")
    return path


def require_one_named(cfg: DictConfig) -> None:
    """Raises ``ValueError`` unless one of the keys ``run``, ``runs`` and ``checkpoint`` is set."""
    keys = {
        "run": "run=FOLDER",
        "runs": "runs=[FOLDER,FOLDER]",
        "checkpoint": "checkpoint=FILE with its model= and dataset=",
    }
    offered = [key for key in keys if key in cfg]
    named = [key for key in offered if cfg[key] is not None]
    if "run" in named and cfg.get("checkpoint") in ("last", "best", "healthy"):
        raise ValueError(f"of a run, which={cfg.checkpoint} chooses the checkpoint")
    if len(named) != 1:
        typed = " and ".join(f"{key}={as_typed(cfg[key])}" for key in named)
        more = f"; {typed} exclude each other" if named else ""
        raise ValueError(f"name one of {', '.join(keys[key] for key in offered)}{more}")


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


def moved_data(overrides: Sequence[str]) -> list[str]:
    """The overrides that a run allows: where its data set now lies."""
    return [o.lstrip("+~") for o in overrides if o.lstrip("+~").startswith("dataset.root=")]


def require_resumable(path: str, overrides: Sequence[str]) -> RunFolder:
    """The run to resume.

    Raises:
        FileNotFoundError: if the folder holds no run.
        ValueError: if an override may not change.
    """
    if not path:
        raise ValueError("resume= names no run: write resume=FOLDER")
    folder = RunFolder.open(path)
    for change in changes_of(overrides):
        if not change.lstrip("+").startswith(CHANGEABLE):
            raise ValueError(fixed(change))
    return folder


def changes_of(overrides: Sequence[str]) -> list[str]:
    """Those that change the configuration of a run that is resumed."""
    return [o for o in overrides if not o.lstrip("+").startswith(("resume=", "trust="))]


def fixed(change: str) -> str:
    """One line about an override that a run which is resumed does not take."""
    return (
        f"resume continues a run as it was, so {change} cannot change: start a new run for it; "
        f"only {'*, '.join(CHANGEABLE)}* can"
    )


def _require_own_groups(run: RunFolder, overrides: Sequence[str]) -> None:
    moved = moved_data(overrides)
    for override in sorted({o.lstrip("+~") for o in overrides} - set(moved)):
        if override.startswith(OF_RUN):
            raise ValueError(
                f"run={run.path} brings its own data set, model and threat: leave out {override}"
            )


def _require_file(path: str) -> None:
    if Path(path).is_dir():
        raise ValueError(f"checkpoint={path} is a folder: name a file in it, or write run=RUN")
    if "://" not in path and not Path(path).is_file():
        raise FileNotFoundError(f"checkpoint {path} not found")
