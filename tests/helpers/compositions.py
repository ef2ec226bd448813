"""Compositions read each file of the configuration and parse each interpolation once a process."""

from copy import deepcopy
from functools import cache
from pathlib import Path

import omegaconf.base
from hydra._internal.config_repository import ConfigRepository
from omegaconf import grammar_parser

from energy_at.core.files import CONF

_load = ConfigRepository.load_config
_known = {}


def install() -> None:
    """Half the time of a composition, and the tests compose thousands."""
    ConfigRepository.load_config = _load_once
    for module in (omegaconf.base, omegaconf._utils):
        module.parse = cache(grammar_parser.parse)


def _load_once(self, config_path):
    paths = tuple(source.path for source in self.sources)
    if not any(Path(path.removeprefix("file://")) == Path(CONF) for path in paths):
        return _load(self, config_path)  # of a test's own, which may change
    if (paths, config_path) not in _known:
        _known[paths, config_path] = _load(self, config_path)
    return deepcopy(_known[paths, config_path])
