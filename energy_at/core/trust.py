"""What a configuration may build: a stranger's run folder must run no code of its own.

Hydra imports and calls whatever a ``_target_`` names. Here that is only what the YAML files of this
project name, and classes and functions of torch, torchvision, timm and Lightning that make
networks, optimizers, callbacks and loggers. Anything else has to be trusted on the command line: a
run folder or a checkpoint is never asked. What a run folder names is checked as a whole when its
configuration is read, whether it would be built or not.
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

from energy_at.core.files import CONF
from energy_at.core.names import ATTACKS
from energy_at.core.rules import as_typed

VARIABLE = "ENERGY_AT_TRUST"  # packages, separated by commas
FAMILIES = {  # package: the class from which everything that may be built there descends
    "torch.nn": "torch.nn.Module",
    "torch.optim": "torch.optim.Optimizer",
    "torch.optim.lr_scheduler": "torch.optim.lr_scheduler.LRScheduler",
    "lightning.pytorch.callbacks": "lightning.pytorch.callbacks.Callback",
    "lightning.pytorch.loggers": "lightning.pytorch.loggers.Logger",
}
TIMM = "timm.create_model"
TIMM_PLACES = (":", "/", "\\")  # in the names of networks that lie on a server, or in a folder
TIMM_READS_FILES = {"_args_", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"}
OF_TRAINER = "lightning"  # if trusted, callbacks and loggers may write to any place
_PLACES = {"dirpath", "default_root_dir", "dir", "save_dir", "_args_"}
_OF_LOGGERS = {"_target_", "project", "mode", "name", "group", "job_type", "tags", "notes"}
_OF_LOGGERS |= {"log_checkpoints", "experiment"}  # which name no place
_ADDRESSES = {"entity": "WANDB_ENTITY", "tracking_uri": "MLFLOW_TRACKING_URI"}
OURS = "energy_at"
_RETURNED = (OURS, "lightning", "timm", "torch", "torchvision")
_trusted: list[str] = []


def set_trusted(packages: Sequence[str]) -> None:
    """Trusts packages or modules in this process, alongside those of ``ENERGY_AT_TRUST``."""
    _trusted[:] = packages


def may_be_trusted(package: str) -> bool:
    """Whether a package may be trusted as a whole: of this one, ``conf/`` names what may be built.

    Others of its functions write and delete files.
    """
    return package.partition(".")[0] != OURS


def require_trusted(cfg: Any, *, of: Path | None = None) -> list[str]:
    """Checks everything that a configuration would build, at any depth.

    Args:
        cfg: A node of a configuration.
        of: The file that it was read from, for messages.

    Raises:
        ValueError: if a target is not trusted.

    Returns:
        What it may build: the targets, and packages of what they may return, as Hydra lists them.
    """
    if not OmegaConf.is_config(cfg):
        return []
    targets, key = [], cfg._get_full_key(None)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    for typed, node in _nodes(plain, key):
        place = f"{of}: {typed}" if of else typed
        target = node["_target_"]
        if not (isinstance(target, str) and target):
            raise ValueError(f"{place}={as_typed(target)} must be the name of a class or function")
        if target == TIMM and (found := TIMM_READS_FILES & node.keys()):
            raise ValueError(
                f"{place}={TIMM} may not take {', '.join(sorted(found))}: checkpoint=FILE loads "
                "weights safely"
            )
        name = str(node.get("model_name"))
        if of and target == TIMM and set(TIMM_PLACES) & set(name) and not below_trusted(TIMM):
            raise ValueError(
                f"{place.removesuffix('._target_')}.model_name={name} would be read from a server "
                "or a folder: if you know what it is, add trust=[timm]"
            )
        if not (target in _own_targets() or _is_family(target) or _is_trusted(target)):
            raise _not_trusted(place, target)
        targets.append(target)
    return targets + [f"{package}.*" for package in (*_RETURNED, *trusted_packages())]


def require_inside(cfg: DictConfig, *, of: Path, typed: DictConfig | None = None) -> None:
    """Checks that a training which is resumed from a run folder sends and writes nothing elsewhere.

    Callbacks write where their arguments say, and loggers send there, which a stranger would
    choose. What is typed for a new run needs no trust, nor does what the environment says.

    Args:
        cfg: The configuration that a run folder holds.
        of: The file that it was read from.
        typed: The configuration that the command line describes, if it is that of the same run.

    Raises:
        ValueError: if an argument may name such a place.
    """
    if below_trusted(f"{OF_TRAINER}.pytorch"):
        return
    _require_no_link(of.parent)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    nodes = [("trainer", plain["trainer"])]
    for group in ("callbacks", "logger"):
        places = _nodes(plain.get(group), group)
        nodes += [(place.rpartition(".")[0], node) for place, node in places]
    for place, node in nodes:
        if place.startswith("logger."):
            found = [key for key in node if key not in _OF_LOGGERS]
            if str(node["_target_"]).startswith("lightning.pytorch.loggers."):
                found = ["_target_"]
        else:
            found = [key for key in node if key in _PLACES]
            if Path(str(node.get("filename") or "")).name != str(node.get("filename") or ""):
                found.append("filename")
        for key in found:
            variable = _ADDRESSES.get(key, "")
            again = OmegaConf.select(typed, f"{place}.{key}") if typed else None
            if node[key] not in (None, os.environ.get(variable), again):
                remedy = f"set {variable}={node[key]}, or " if variable else ""
                raise ValueError(
                    f"{of}: {place}.{key}={node[key]} may have the training write or send its data "
                    f"elsewhere: if you know what it does, {remedy}add trust=[{OF_TRAINER}]"
                )


def _require_no_link(run: Path) -> None:
    for name in ("checkpoints", "metrics.csv"):  # other files are replaced, links too
        if not (place := run / name).resolve().is_relative_to(run.resolve()):
            raise ValueError(
                f"{place} is a link to {place.resolve()}, outside of the run folder: if the "
                f"training may write there, add trust=[{OF_TRAINER}]"
            )


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
            must = "the name of a function: my_module.my_attack"
            raise ValueError(f"{key}={as_typed(target)} must be {must}")
        if not below_trusted(target):
            raise _not_trusted(key, target)
        try:
            found[name] = get_object(target)
        except (ImportError, ValueError) as error:
            raise ValueError(
                f"{key}={target} cannot be imported: {error.__cause__ or error}"
            ) from None
        if not callable(found[name]):
            raise ValueError(f"{key}={target} must be a function of model, x and y")
    return found


def _not_trusted(key: str, target: str) -> ValueError:
    """With the remedy, if there is one."""
    package = target.partition(".")[0]
    if not may_be_trusted(package):
        remedy = "no configuration of this project builds it, and none may"
    elif below_trusted(target):  # an alias
        remedy = (
            f"it is of {_module_of(target)}: name a function or class of your own that calls it"
        )
    else:
        remedy = f"if you know what it does, add trust=[{package}] or set {VARIABLE}={package}"
    return ValueError(f"{key}={target} is not trusted, for it could run any code: {remedy}")


def _nodes(value: Any, key: str) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Everything with a ``_target_``, with the key of that, outermost first."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield f"{key}._target_".lstrip("."), value
        for name, below in value.items():
            for place, node in _nodes(below, f"{key}.{name}".lstrip(".")):
                # net._target_ repeats target, which a user types
                repeats = (
                    node is below and name == "net" and node["_target_"] == value.get("target")
                )
                yield (f"{key}.target" if repeats else place), node
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from _nodes(below, f"{key}[{number}]")


@cache
def _own_targets() -> frozenset[str]:
    text = "\n".join(file.read_text(encoding="utf-8") for file in Path(CONF).rglob("*.yaml"))
    targets = re.findall(r"^\s*_target_: ((?:energy_at|lightning)\.[\w.]+)", text, re.MULTILINE)
    return frozenset(targets)


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
    try:
        return below_trusted(_module_of(target))
    except ImportError:  # there is nothing to run: who builds it says so, who reads it need not
        return True


def _module_of(target: str) -> str:
    found = get_object(target)
    return str(getattr(found, "__module__", None) or type(found).__module__)


def below_trusted(name: str) -> bool:
    packages = filter(may_be_trusted, trusted_packages())
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def trusted_packages() -> list[str]:
    listed = (name.strip() for name in os.environ.get(VARIABLE, "").split(","))
    return [*_trusted, *filter(None, listed)]
