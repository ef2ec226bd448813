"""The weights that ``init=FILE|RUN`` names, to start a training from."""

from collections.abc import Collection, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from energy_at.core.files import is_first, sha256
from energy_at.core.progress import write_line
from energy_at.core.rules import ArgumentError
from energy_at.models.sources import (
    OPTIONS,
    detected,
    has_final_norm,
    normalization_of,
    options_of,
)
from energy_at.models.weights import NORMALIZATION, is_normalization, start_from, tensors_of
from energy_at.runs.checkpoints import read_tensors, recorded_model
from energy_at.runs.selection import initial_file

SIZES = ("width", "depth", "widen", "patch_size")  # of a network, which a file of ours records
NORMALIZED_BY = {"dataset.mean", "dataset.std", "model.mean", "model.std"}  # keys


def keys_typed(overrides: Sequence[str]) -> set[str]:
    return {override.lstrip("+").partition("=")[0] for override in overrides}


def network_options(
    cfg: DictConfig,
    file: Path,
    layers: Collection[str],
    source: str | None,
    typed: Collection[str],
    *,
    normalize: bool,
) -> tuple[str | None, dict[str, Any]]:
    """The code base of a file of weights, and what it decides of ``cfg.model`` that is not typed.

    Args:
        cfg: With the data set and the model.
        file: Which a file of ours describes itself.
        layers: Names of its weights.
        source: The code base, if it was named; else it is detected, or unknown.
        typed: Keys of the command line.
        normalize: Whether the code base decides the normalization too.

    Raises:
        ArgumentError: if the code base is unknown.
    """
    name = source or detected(layers)
    if name is None:
        model = recorded_model(file)
        options: dict[str, Any] = {"final_norm": has_final_norm(layers)}
        same = model.get("_target_") == cfg.model.get("_target_")
        keys = (*OPTIONS, *SIZES) if same else OPTIONS
        options |= {key: model[key] for key in keys if key in model}
    else:
        options = options_of(name, layers)
        if normalize:
            options |= normalization_of(name, cfg.dataset.name, cfg.dataset.channels)
    known = {k: v for k, v in options.items() if k in cfg.model and f"model.{k}" not in typed}
    return name, known


def require_own_constants(
    cfg: DictConfig, file: Path, state: Mapping[str, Tensor], typed: Set[str]
) -> None:
    """Raises ``ArgumentError`` if a typed mean or std is not the one that a file of weights holds.

    The file's are the ones that its network takes.
    """
    for key in sorted(typed & NORMALIZED_BY):
        names, value = NORMALIZATION[key.rpartition(".")[2]], OmegaConf.select(cfg, key)
        held = [v.flatten() for k, v in state.items() if k.rpartition(".")[2] in names]
        if any(v.tolist() != torch.tensor(value).to(v).flatten().tolist() for v in held):
            raise ArgumentError(key, list(value), f"left out: {file} holds a normalization")


def changes(cfg: DictConfig, options: dict[str, Any]) -> str:
    """``shortcut=plain, mean=[0.0]``: the options that differ from ``cfg.model``; then no more."""
    found = ", ".join(f"{key}={value}" for key, value in options.items() if cfg.model[key] != value)
    cfg.model.update(options)
    return found


def describe_initial(cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Writes into ``cfg.model`` what is known of the network of ``init``, unless it is typed.

    Returns lines that say so, and what was assumed.

    Raises:
        FileNotFoundError: if the file or the run does not exist.
        ArgumentError: if the code base is unknown.
    """
    if cfg.get("init") is None:
        return []
    source = cfg.get("init_source")
    file, typed = initial_file(cfg), keys_typed(overrides)
    layers = tensors_of(read_tensors(file))
    require_own_constants(cfg, file, layers, typed)
    by_user = bool(NORMALIZED_BY & typed)
    try:
        name, options = network_options(cfg, file, layers, source, typed, normalize=not by_user)
    except ArgumentError as error:
        raise ArgumentError("init_source", error.value, error.must) from error
    lines = []
    if changed := changes(cfg, options):
        lines = [f"network of {name or file}: {changed}"]
    taken = []
    if "shortcut" in cfg.model and not {"shortcut", "model.shortcut"} & {*options, *typed}:
        taken = [f"model.shortcut={cfg.model.shortcut}"]
    if name is None and not by_user and not any(map(is_normalization, layers)):
        taken.append("the normalization of the data set")
    if taken:
        lines.append(
            f"{file} does not say all of its network: taken {' and '.join(taken)}; "
            "init_source=NAME of its code base decides otherwise"
        )
    return lines


def load_initial(cfg: DictConfig, net: nn.Module, said: Sequence[str] = ()) -> None:
    """Loads the weights of ``init``, if there are any, and writes their digest into ``cfg``.

    A line says so, and the lines ``said`` follow.

    Raises:
        FileNotFoundError: if the file or the run does not exist.
        ValueError: if the weights do not fit, or are not those of a digest in ``cfg``.
    """
    if cfg.get("init") is None:
        return
    path = initial_file(cfg)
    found = sha256(path.read_bytes())
    if cfg.init_sha256 not in (None, found):
        raise ValueError(
            f"init_sha256={cfg.init_sha256} must be the digest of {path}, which is {found}: "
            "the file has changed"
        )
    try:
        reset = start_from(net, read_tensors(path))
    except ValueError as error:
        raise ValueError(f"init={cfg.init}: {error}") from error
    cfg.init_sha256 = found
    if is_first():
        head = f"; other classes: {', '.join(reset)} start anew" if reset else ""
        for line in (f"{path}, SHA-256 {found[:12]}{head}", *said):
            write_line(f"init     {line}")
