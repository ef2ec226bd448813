"""Resuming a run: its configuration, its last checkpoint, and what may change."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from energy_at.core.files import is_first, remove_parts
from energy_at.core.rules import as_typed, is_integer
from energy_at.core.trust import require_inside
from energy_at.models.sources import OPTIONS
from energy_at.runs.checkpoints import read_training_state
from energy_at.runs.folder import RunFolder, runs_below
from energy_at.runs.metrics_log import require_rows
from energy_at.runs.selection import CHANGEABLE, changes_of, require_resumable

# What a training finds out about its images and its initial weights, where nobody types it.
_OF_IMAGES = ("channels", "size", "classes", "names", "mean", "std", "pad", "val_size")
_FOUND = ("init_sha256", *(f"dataset.{name}" for name in _OF_IMAGES))
_ENDS = {"png": b"IEND", "pdf": b"%%EOF"}  # of a whole file
_PATHS = {"init", "dataset.root", "dataset.file", "dataset.reader.file", "dataset.extra"}
_BAR = "trainer.enable_progress_bar"  # of a command, not of a training
_PRESETS = ("experiment", "scale", "protocol")  # groups with keys of other groups
_OF_INIT = tuple(f"model.{name}" for name in (*OPTIONS, "mean", "std"))


def open_job(
    cfg: DictConfig, folder: RunFolder, overrides: Sequence[str], *, in_sweep: bool
) -> tuple[DictConfig, RunFolder, Path | None, Sequence[str]] | None:
    """What a command trains: configuration, folder, checkpoint to resume, overrides.

    A command that is re-run continues what it began: ``None`` if that has finished. The folder is
    in use by this process.

    Raises:
        FileNotFoundError, ValueError: if the folder holds another training, or as for ``resume=``.
    """
    if cfg.resume is not None:
        return open_resumed(str(cfg.resume), overrides)
    holds_run = in_sweep or folder.config_file.is_file()
    if holds_run and not in_sweep and is_first():
        _require_same(cfg, folder, overrides)
    if holds_run and folder.results_file.is_file() and not _lacks_results(folder):
        if is_first():
            _require_whole_log(folder)
        _tidy(folder)
        return None
    if holds_run and (folder.has_checkpoint() or (is_first() and not in_sweep)):
        resumed = open_resumed(str(folder.path), [], typed=cfg)
        OmegaConf.update(resumed[0], _BAR, cfg.trainer.enable_progress_bar)
        return resumed
    return cfg, folder, None, overrides


def _require_same(cfg: DictConfig, folder: RunFolder, overrides: Sequence[str]) -> None:
    """Raises ``ValueError`` if a folder holds another training than a command describes."""
    before, asked = folder.config(to_build=False), copy.deepcopy(cfg)
    OmegaConf.set_struct(asked, False)
    typed, typed_before = _typed(overrides), _typed(folder.overrides())
    found = {key for key in _FOUND if OmegaConf.select(asked, key) is None}
    found |= set(_OF_INIT) - typed.keys() if asked.get("init") is not None else set()
    for key in found:
        if (value := OmegaConf.select(before, key)) is not None:
            OmegaConf.update(asked, key, value)
    saved = OmegaConf.create(OmegaConf.to_yaml(asked, resolve=True))
    held, wanted = (_leaves(OmegaConf.to_container(one)) for one in (before, saved))
    paths = wanted.keys() & held.keys() & _PATHS  # relative in one, absolute in the other
    wanted |= {key: held[key] for key in paths if _place(held, key) == _place(wanted, key)}
    keys = [key for key in wanted | held if key != _BAR]
    different = [key for key in keys if not _are_same(held.get(key), wanted.get(key))]
    if not different:
        return
    key = next((key for key in different if key in typed), different[0])
    group, longer = _other_choice(typed_before, typed, different), _is_longer(asked, before)
    may_change = (
        group is None
        and key.startswith(CHANGEABLE)
        and (longer or not key.startswith("trainer.max_"))
    )
    change = f" {key}={as_typed(wanted.get(key))}" if may_change else ""
    then = "starts it over" if folder.has_only_begun else "continues it"
    has_finished = folder.results_file.is_file() and not (longer and change)
    resume = "" if has_finished else f"resume={folder.path}{change} {then}, "
    what = f"with {key}={as_typed(held.get(key))}, not {as_typed(wanted.get(key))}"
    if group is not None:
        what = f"without {group}={typed.get(group)}"
        if (choice := typed_before.get(group)) is not None:
            what = f"with {group}={choice}, not {typed.get(group, 'the default')}"
    raise ValueError(
        f"{folder.path} already holds a run {what}: "
        f"{resume}hydra.run.dir=FOLDER starts a new one elsewhere"
    )


def _typed(overrides: Sequence[str]) -> dict[str, str]:
    """Values, as they were typed, by key."""
    parts = (override.lstrip("+~").partition("=") for override in overrides)
    return {key: value for key, _, value in parts}


def _other_choice(
    before: Mapping[str, str], typed: Mapping[str, str], different: Sequence[str]
) -> str | None:
    """A group of which another choice was typed, and that has some of the different keys.

    An experiment, which has keys of all groups, is the last one to be named.
    """
    groups = [key for key in {**before, **typed} if "." not in key and key not in different]
    other = [group for group in groups if before.get(group) != typed.get(group)]
    with_keys = [g for g in other if any(key.startswith(f"{g}.") for key in different)]
    presets = [g for g in other if g in _PRESETS and not typed.keys() & set(different)]
    return next(iter(with_keys + presets), None)


def _are_same(one: Any, other: Any) -> bool:
    """Also numbers in another spelling, such as 3/100 and 0.03."""
    if one == other or bool in (type(one), type(other)):
        return bool(one == other)
    with suppress(ValueError, ZeroDivisionError):
        return Fraction(str(one).replace(" ", "")) == Fraction(str(other).replace(" ", ""))
    return False


def _place(leaves: Mapping[str, Any], key: str) -> Path | None:
    """What a path in a configuration stands for; files of a data set lie below its root."""
    if key == "dataset.root" and "dataset.file" in leaves:
        key = "dataset.file"
    if leaves[key] is None:
        return None
    below = Path(str(leaves.get("dataset.root", "")) if key.endswith(".file") else "").expanduser()
    return (below / Path(str(leaves[key])).expanduser()).resolve()


def _leaves(node: Any, above: str = "") -> dict[str, Any]:
    """Values by key, full and dotted; an empty group has none."""
    if not isinstance(node, dict):
        return {above[:-1]: node}
    return {k: v for name in node for k, v in _leaves(node[name], f"{above}{name}.").items()}


def open_resumed(
    path: str, overrides: Sequence[str], *, typed: DictConfig | None = None
) -> tuple[DictConfig, RunFolder, Path | None, Sequence[str]]:
    """Configuration, folder, last checkpoint and changes of a run to resume.

    A run that was stopped before its first checkpoint starts over: without a checkpoint, and with
    all its overrides. A job of a sweep is ``typed`` again.

    Raises:
        FileNotFoundError: if there is no run, or its checkpoint is lost.
        ValueError: if an override may not change, the checkpoint or the log is damaged, or the run
            has finished.
    """
    folder, changes = require_resumable(path, overrides), changes_of(overrides)
    before = folder.config()
    require_inside(before, of=folder.config_file, typed=typed)
    cfg = OmegaConf.merge(before, OmegaConf.from_dotlist([c.lstrip("+") for c in changes]))
    assert isinstance(cfg, DictConfig)
    if folder.has_only_begun:
        return cfg, folder, None, [*folder.overrides(), *changes]
    checkpoint, state = folder.checkpoint("last"), _state_and_log(folder)
    begun = state["loops"]["fit_loop"]["epoch_progress"]["current"]["ready"]
    epochs, steps = (_repeated(state, name) for name in ("repeated", "repeated_steps"))
    for key, done in (("max_epochs", begun - epochs), ("max_steps", state["global_step"] - steps)):
        if is_integer(asked := cfg.trainer.get(key)) and 0 <= asked < done:
            raise ValueError(
                f"trainer.{key}={asked}: {path} has trained {done} already: at least as many, or a "
                "new run"
            )
    # The first process has noted the longer training where the others look for the shorter.
    if has_results := folder.results_file.is_file():
        folder.results()  # raises for damaged ones, which a longer training would replace
    ends_here = has_results and not _is_longer(cfg, before)
    if is_first() and ends_here and not _lacks_results(folder):
        _tidy(folder)
        raise ValueError(
            f"{path} {_ending(state)}: trainer.max_epochs above {before.trainer.max_epochs} trains "
            "it further, energy_at.evaluate evaluates it again"
        )
    if is_first() and ends_here and cfg.evaluation != before.evaluation:
        raise ValueError(
            f"{path} {_ending(state)}, with part of its results: resume={path} without "
            "evaluation... completes them, energy_at.evaluate then evaluates it in another way"
        )
    return cfg, folder, checkpoint, changes


def _state_and_log(folder: RunFolder) -> dict[str, Any]:
    """State of the last checkpoint; raises ``ValueError`` unless the log has its rows."""
    state = read_training_state(folder.checkpoint("last"))
    require_rows(folder.metrics_file, state.get("metrics_rows", 0), state["global_step"])
    return state


def _require_whole_log(folder: RunFolder) -> None:
    """Raises ``ValueError`` if a finished run has lost rows of its log, or if it is damaged."""
    if folder.has_checkpoint():
        _state_and_log(folder)
    folder.log()


def _tidy(folder: RunFolder) -> None:
    """Removes what a process that was killed at its very end has left in a finished run."""
    if is_first():
        folder.evaluated_file.unlink(missing_ok=True)
        remove_parts(folder.path)


def _lacks_results(folder: RunFolder) -> bool:
    """Whether results of a finished run, or its figure, are lost that can be computed again.

    Raises:
        ValueError: if its results are damaged: they are no end of a run.
    """
    results, cfg = folder.results(), folder.config()
    if not folder.has_checkpoint():
        return False
    parts = [
        "held_out",
        "status",
        "training",
        *(["alarms"] if cfg.callbacks.get("sentinel") else []),
    ]
    kept = [name for name in cfg.evaluation.checkpoints if folder.has_checkpoint(name)]
    which = [name for name in kept if name == "last" or cfg.callbacks.get(name)]
    accuracies = [
        results.get(name, {}).get(images) for name in which for images in cfg.evaluation.images
    ]
    if any(part not in results for part in parts) or not all(accuracies):
        return True
    figures = ((folder.path / f"delta_energy.{kind}", end) for kind, end in _ENDS.items())
    whole = all(path.is_file() and end in path.read_bytes()[-12:] for path, end in figures)
    return not whole and len(folder.log()["train/loss"]) > 0


def _is_longer(cfg: DictConfig, before: DictConfig) -> bool:
    """Whether a configuration asks for more training; an invalid one is refused later."""
    for key in ("max_epochs", "max_steps"):
        asked, done = cfg.trainer.get(key), before.trainer.get(key)
        if not (is_integer(asked) and is_integer(done)) or 0 <= done < asked or asked < 0 <= done:
            return True
    return False


def job_folder(output: Path, sweep: Path, overrides: Sequence[str]) -> RunFolder:
    """The folder of a job of a sweep: where it ran before, or else Hydra's ``output`` if free.

    A sweep with its overrides in another order numbers its jobs anew: a job is identified by its
    overrides. A folder that another job holds is left to it.
    """
    for folder in runs_below(sweep):
        with suppress(ValueError):  # of a damaged record
            if sorted(folder.overrides()) == sorted(overrides):
                return folder
    if not (is_first() and RunFolder(output).config_file.is_file()):
        return RunFolder(output)
    return RunFolder(next(filter(_claim, (output.with_name(str(n)) for n in count()))))


def _claim(folder: Path) -> bool:
    """Whether a folder was free: jobs that run at the same time look for one too."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def _repeated(state: Mapping[str, Any], name: str) -> int:
    """By how much rollbacks have extended a training, whose settings say nothing of it."""
    sentinel = state.get("sentinel") or {}
    rollback = sentinel.get("rollback")
    value = rollback.get(name) if isinstance(rollback, Mapping) else None
    return value if is_integer(value) else 0  # of a damaged state, which is refused later


def _ending(state: Mapping[str, Any]) -> str:
    sentinel = state.get("sentinel") or {}
    if sentinel.get("stopped_at") is None or not sentinel.get("alarms"):
        return "has finished"
    first = sentinel["alarms"][0]
    return f"was stopped by the sentinel ({first['kind']} alarm at step {first['step']})"
