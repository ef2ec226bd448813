"""What differs between the versions of Hydra, OmegaConf and Python that are supported."""

from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hydra.utils
import omegaconf
from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

HAS_ALLOW_LIST = hasattr(hydra.utils, "UNSAFE_DISABLE_EXECUTION_CHECKS")  # Hydra >= 1.4
BASE = {} if HAS_ALLOW_LIST else {"version_base": "1.3"}  # of the behaviour; deprecated in 1.4
OF_COMMANDS = (  # what Hydra itself builds for a command
    "energy_at.config.sweep_summary.SweepSummary",
    "logging.FileHandler",
    "logging.StreamHandler",
)

# Hydra copies this singleton with each list of choices: two thirds of the time of --help.
setattr(ConfigStore, "__deepcopy__", lambda store, _: store)  # noqa: B010


def allow(*, main: Sequence[str] = (), instantiate: Sequence[str] = ()) -> dict[str, Any]:
    """The argument by which Hydra gets a list of the targets that it may build, if it takes one."""
    if not HAS_ALLOW_LIST:
        return {}
    lists = {"execution_whitelist": [*main], "_execution_whitelist_": [*instantiate]}
    return {name: targets for name, targets in lists.items() if targets}


def instantiate(cfg: Any, **options: Any) -> Any:
    """Hydra's ``instantiate``, whose error names the key and has that of the target as its cause.

    Hydra >= 1.4 raises the target's error with a note instead.
    """
    try:
        return hydra.utils.instantiate(cfg, **options)
    except InstantiationException:
        raise
    except Exception as error:
        notes = getattr(error, "__notes__", ())
        place = next((note for note in notes if note.startswith("full_key: ")), None)
        if place is None:
            raise
        root = cfg._get_root() if isinstance(cfg, DictConfig) else None
        target = OmegaConf.select(root, f"{place.split()[1]}._target_") if root else None
        message = f"Error in call to target '{target}':\n{error!r}\n{place}"
        raise InstantiationException(message) from error


def register_resolver(name: str, resolver: Callable[..., Any]) -> None:
    """Registers a resolver, in the place of one of the same name."""
    old = omegaconf.__version__.startswith("2.3")  # where the other name was one of 1.4
    register: Any = OmegaConf.register_new_resolver if old else OmegaConf.register_resolver
    register(name, resolver, replace=True)


@contextmanager
def unchecked_help() -> Iterator[None]:
    """Has argparse take what Hydra < 1.4 gives as help, which Python 3.14 refuses: no string."""
    name = "_check_help"  # not there before Python 3.14
    if not hasattr(ArgumentParser, name):
        yield
        return
    own = vars(ArgumentParser).get(name)  # else it is inherited
    setattr(ArgumentParser, name, lambda *_: None)
    try:
        yield
    finally:
        if own is None:
            delattr(ArgumentParser, name)
        else:
            setattr(ArgumentParser, name, own)
