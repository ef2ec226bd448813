"""What a file of a run holds that no training has written so: damage, or a stranger's doing."""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from energy_at.core.rules import Rule, as_typed, integer, is_integer, is_number, or_null

# Of any configuration: groups, and settings that commands compute with which build nothing.
_GROUPS = ("dataset", "model", "threat", "attack", "loss", "reg", "trainer", "training")
_MOST = 100_000  # values in a configuration; a few lines of aliases can stand for billions
_BELOW = ("threat.ball", "reg.terms")
_SETTINGS = {
    "dataset.classes": integer(1),
    "dataset.channels": integer(1),
    "dataset.size": integer(1),
    "dataset.batch_size": or_null(integer(1)),
    "dataset.val_size": or_null(integer(1)),
    "attack.steps": or_null(integer(0)),
    "trainer.max_epochs": or_null(integer(1)),
    "trainer.max_steps": or_null(integer(-1)),
    "reg.weight": or_null(Rule("a finite number", is_number)),
}


def load_config(file: Path) -> Any:
    """What a YAML file of a run holds.

    Raises:
        ValueError: if it is damaged, or its aliases repeat its parts more often than any run's.
    """
    try:
        text = file.read_text(encoding="utf-8")
        size = _expanded(yaml.compose(text), {}) if "*" in text else 0
        loaded = OmegaConf.load(file) if size <= _MOST else None
    except RecursionError as error:
        raise ValueError(f"{file} is damaged: it is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:  # of which UnicodeDecodeError is one
        mark = getattr(error, "problem_mark", None)
        at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{file} is damaged: {at}it is not YAML") from error
    if size > _MOST:
        raise ValueError(f"{file} is damaged: its aliases stand for {size:.2g} values")
    return loaded


def _expanded(node: Any, known: dict[int, int]) -> int:
    """Number of values that a part of a YAML file stands for, with what aliases repeat."""
    if id(node) not in known:
        parts: Any = node.value if isinstance(node, yaml.CollectionNode) else ()
        if isinstance(node, yaml.MappingNode):
            parts = [value for pair in node.value for value in pair]
        known[id(node)] = 1 + sum(_expanded(part, known) for part in parts)
    return known[id(node)]


def damage_of_config(cfg: DictConfig) -> str | None:
    """What no training has written so, to follow the name of the file."""
    for group in _GROUPS:
        if not isinstance(cfg.get(group), DictConfig):
            return f" is damaged: it has no group {group}"
    if "${" in OmegaConf.to_yaml(cfg):  # it would be resolved here: ${oc.env:SECRET}
        return " holds an interpolation ${...}, which no run saves: refused"
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        return f" is damaged: {missing[0]} is missing"
    try:
        json.dumps(OmegaConf.to_container(cfg))
    except TypeError as error:
        return f" is damaged: {error}"
    for key in _BELOW:
        if not isinstance(OmegaConf.select(cfg, key, default={}), dict | DictConfig):
            return f" is damaged: {key} is no group of keys"
    for key, rule in _SETTINGS.items():
        value = OmegaConf.select(cfg, key)
        if must := rule.broken_by(value):
            return f": {key}={as_typed(value)} must be {must}"
    return None


def damage_of_results(results: Mapping[str, Any]) -> str | None:
    """What is not as a training has written it."""
    for which in ("last", "best"):
        parts = results.get(which, {})
        if not isinstance(parts, dict) or not is_integer(parts.get("step", 0)):
            return f"{which} must hold a step and accuracies"
        for images, shares in parts.items():
            numbers = isinstance(shares, dict) and all(map(is_number, shares.values()))
            if images != "step" and not (numbers and integer(1).holds(shares.get("n"))):
                return f"{which}.{images} must hold accuracies and n"
            if images != "step" and (wrong := [k for k in shares if not _is_share(k, shares[k])]):
                return f"{which}.{images}.{wrong[0]}={shares[wrong[0]]} must be from 0 to 1"
    for name, (holds, must) in _PARTS.items():
        if name in results and not holds(results[name]):
            return f"{name} must {must}"
    return None


def _is_alarm(value: Any) -> bool:
    named = isinstance(value, dict) and isinstance(value.get("kind"), str)
    return named and is_integer(value.get("step"))


def _is_share(name: str, value: float) -> bool:
    return name == "n" or 0 <= value <= 1


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_number, value.values()))


_PARTS: dict[str, tuple[Callable[[Any], bool], str]] = {  # of results
    "held_out": (_are_numbers, "hold numbers"),
    "training": (_are_numbers, "hold numbers"),
    "status": (lambda value: isinstance(value, dict), "be a mapping"),
    "rows": (is_integer, "be an integer"),
    "alarms": (
        lambda value: isinstance(value, list) and all(map(_is_alarm, value)),
        "be a list, each with kind and step",
    ),
}


def require_columns(names: Sequence[str]) -> None:
    """Raises ``ValueError`` unless these can be the columns of a log."""
    if "step" not in names:
        raise ValueError("it names no column step")
    if len(set(names)) < len(names):
        raise ValueError("it names a column twice")


def damage_of_log(
    content: bytes, columns: Sequence[str] = (), before: int = 0
) -> tuple[int, str] | None:
    """The first line of a log, counted from 1, that is not as it was written, and why.

    Args:
        content: Whole lines, the first of which names the columns unless they are given.
        columns: Known from lines before.
        before: Number of these lines.
    """
    for number, raw in enumerate(content.split(b"\n")[:-1], before + 1):
        if b"\r" in raw:  # a resumed run would take it for a part of the last column's name
            return number, "it ends as on another system: another program has rewritten the file"
        try:
            cells = next(csv.reader([raw.decode()], strict=True), [])
            if number == 1:
                require_columns(cells)
                columns = cells
                continue
        except (ValueError, csv.Error) as error:
            return number, str(error) if number == 1 else "it is not text"
        if cells and len(cells) != len(columns):
            return number, f"it has {len(cells)} cells for {len(columns)} columns"
        for name, cell in zip(columns, cells, strict=False):
            if not _fits(name, cell):
                return number, f"column {name} holds {cell[:20]!r}, which is no number"
    return None


def _fits(column: str, cell: str) -> bool:
    if not cell:
        return column != "step"
    try:
        return "_" not in cell and (math.isfinite(float(cell)) or column != "step")
    except ValueError:
        return False
