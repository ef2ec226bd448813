"""What a configuration may build: a stranger's run folder must run no code of its own.

Hydra imports and calls whatever a ``_target_`` names. Here that is only what the YAML files of this
project name, and classes and functions of torch, torchvision, timm and Lightning that make
networks, optimizers, callbacks and loggers. Anything else has to be trusted on the command line: a
run folder or a checkpoint is never asked.
"""

import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from energy_at.config import CONF
from energy_at.core.names import ATTACKS

VARIABLE = "ENERGY_AT_TRUST"  # packages, separated by commas
FAMILIES = {  # package: the class from which everything that may be built there descends
    "torch.nn": "torch.nn.Module",
    "torch.optim": "torch.optim.Optimizer",
    "torch.optim.lr_scheduler": "torch.optim.lr_scheduler.LRScheduler",
    "lightning.pytorch.callbacks": "lightning.pytorch.callbacks.Callback",
    "lightning.pytorch.loggers": "lightning.pytorch.loggers.Logger",
}
TIMM = "timm.create_model"
TIMM_READS_FILES = {"_args_", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"}
_RETURNED = ("energy_at", "lightning", "timm", "torch", "torchvision")
_trusted: list[str] = []


def set_trusted(packages: Sequence[str]) -> None:
    """Trusts packages or modules in this process, with those of ``ENERGY_AT_TRUST``."""
    listed = os.environ.get(VARIABLE, "").split(",")
    _trusted[:] = [*packages, *(name.strip() for name in listed if name.strip())]


def require_trusted(cfg: Any) -> list[str]:
    """Raises ``ValueError`` for a node that would build anything else, at any depth.

    Returns:
        What it may build: the targets, and packages of what they may return, as Hydra lists them.
    """
    if not OmegaConf.is_config(cfg):
        return []
    targets, key = [], cfg._get_full_key(None)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    for place, node in _nodes(plain, key):
        target = node["_target_"]
        if place == f"{key}.net._target_" and plain.get("target") == target:
            place = f"{key}.target"  # which it repeats, and which a user types
        if not isinstance(target, str):
            raise ValueError(f"{place}={target} must be the name of a class or function")
        if target == TIMM and (found := TIMM_READS_FILES & node.keys()):
            raise ValueError(
                f"{place}={TIMM} may not take {', '.join(sorted(found))}: checkpoint=FILE loads "
                "weights safely"
            )
        if not (target in _own_targets() or _is_family(target) or _is_trusted(target)):
            package = target.partition(".")[0]
            raise ValueError(
                f"{place}={target} is not trusted, for it could run any code: if you know what it "
                f"does, add trust=[{package}] or set {VARIABLE}={package}"
            )
        targets.append(target)
    return targets + [f"{package}.*" for package in (*_RETURNED, *_trusted)]


def own_attacks(cfg: DictConfig) -> dict[str, Any]:
    """Functions of the user by name, from the names of these functions.

    Raises:
        ValueError: if a name is taken or no name, or the function is missing or not trusted.
    """
    found = {}
    for name, target in ((str(name), value) for name, value in cfg.items()):
        key = f"attack.{name}"
        if name in cfg._get_root():
            raise ValueError(f"{key}={target}: write {name}={target}")
        if name in ATTACKS or not name.isidentifier():
            raise ValueError(f"{key}: choose a name that is no attack of this package")
        if not (isinstance(target, str) and re.fullmatch(r"(\w+\.)+\w+", target)):
            raise ValueError(f"{key}={target} must be the name of a function: my_module.my_attack")
        package = target.partition(".")[0]
        if not below_trusted(target):
            raise ValueError(
                f"{key}={target} is not trusted, for it could run any code: if you know what it "
                f"does, add trust=[{package}] or set {VARIABLE}={package}"
            )
        try:
            found[name] = get_object(target)
        except (ImportError, ValueError) as error:
            raise ValueError(f"{key}={target} cannot be imported: {error}") from None
        if not callable(found[name]):
            raise ValueError(f"{key}={target} must be a function of model, x and y")
    return found


def _nodes(value: Any, key: str) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Everything with a ``_target_``, with the key of that, outermost first."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield f"{key}._target_".lstrip("."), value
        for name, below in value.items():
            yield from _nodes(below, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from _nodes(below, f"{key}[{number}]")


@cache
def _own_targets() -> frozenset[str]:
    text = "\n".join(file.read_text(encoding="utf-8") for file in Path(CONF).rglob("*.yaml"))
    return frozenset(re.findall(r"^\s*_target_: (energy_at\.[\w.]+)", text, re.MULTILINE))


def _is_family(target: str) -> bool:
    package, _, name = target.rpartition(".")
    if package == "torchvision.models":
        return name in import_module(package).list_models()
    if package not in FAMILIES:
        return target == TIMM
    found = getattr(import_module(package), name, None)
    return isinstance(found, type) and issubclass(found, get_object(FAMILIES[package]))


def _is_trusted(target: str) -> bool:
    """Whether both the name and what stands behind it belong to a package that is trusted."""
    if not below_trusted(target):
        return False
    found = get_object(target)
    return below_trusted(str(getattr(found, "__module__", None) or type(found).__module__))


def below_trusted(name: str) -> bool:
    return any(name == trusted or name.startswith(f"{trusted}.") for trusted in _trusted)
