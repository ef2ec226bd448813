"""Every key of a command with values that are mostly wrong, in one process.

A configuration is composed once; each value is applied as Hydra applies what is typed.
"""

import contextlib
import copy
import functools
import importlib
import inspect
import io
import re
import traceback
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, base, open_dict

from energy_at.config.cli import Job
from energy_at.config.errors import explain
from energy_at.config.keys import require_read, require_single
from energy_at.config.preflight import prepare
from energy_at.config.schema import check, check_start
from energy_at.config.versions import register_resolver
from energy_at.core.files import CONF
from energy_at.core.trust import require_trusted, set_trusted
from energy_at.runs.folder import RunFolder
from energy_at.runs.resume import open_job
from energy_at.runs.selection import require_named

VALUES = ("-1", "0", "nan", "inf", '""', "null", "[]", "{}", "abc", "[1,2]", "true", "0.5", "1e30",
          "99999999999999999999")  # fmt: skip
PARSER = OverridesParser.create()
base.parse = functools.cache(base.parse)  # of the same interpolations, in thousands of cases
PARTS = ("watch", "benchmark", "doctor")  # commands that are packages


class Fuzz:
    """A command with what is typed in any case; it writes below ``out``, if at all."""

    def __init__(self, command, typed, out):
        self.command, self.typed, self.out = command, list(typed), Path(out)
        register_resolver("command_help", lambda: "")
        GlobalHydra.instance().clear()
        initialize_config_dir(str(Path(CONF).absolute()), version_base="1.3")  # and stay so
        self.base = compose(command, self.typed, return_hydra_config=True)
        package = f"energy_at.{command}" + ".__main__" * (command in PARTS)
        self.body = inspect.unwrap(importlib.import_module(package).main)

    def keys(self):
        """Every key and every group of keys, but for Hydra's and tables of published values."""
        for name in self.base:
            if name != "hydra":
                yield from _keys(self.base, name, "")

    def target(self, key):
        """What a key is an argument of: the same key may be of another class elsewhere."""
        node = self.base
        for name in key.split(".")[:-1]:
            node = node._get_node(name)
        return str(node.get("_target_")), key

    def type_in(self, override):
        """``None`` if the command takes it, or the line of its error, or a traceback."""
        try:
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                self._run(override)
        except SystemExit as stop:
            return f"exit {stop.code}"
        except Exception as error:
            line = explain(error, self.command)
            return line if line is not None else "".join(traceback.format_exception(error))
        return None

    def _run(self, override):
        cfg, typed = copy.deepcopy(self.base), [*self.typed, override]
        ConfigLoaderImpl._apply_overrides_to_config([PARSER.parse_override(override)], cfg)
        with open_dict(cfg.hydra):
            cfg.hydra.overrides.task, cfg.hydra.runtime.output_dir = typed, str(self.out)
        HydraConfig.instance().set_config(cfg)
        check_start(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        require_single(typed)
        require_read(cfg, self.command, typed)
        check(cfg)
        require_named(cfg, typed)
        with open_dict(cfg):
            set_trusted(cfg.pop("trust", []))
        require_trusted(cfg)
        if self.command == "train":  # all that comes before the first step
            prepare(*open_job(cfg, RunFolder(self.out), typed, in_sweep=False))
        elif "job" in inspect.signature(self.body).parameters:
            self.body(cfg, Job(self.out))
        else:
            self.body(cfg)


def _keys(above, name, before):
    key, node = f"{before}{name}", above._get_node(name)
    if name == "published":
        return
    yield key
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
        for below in node:
            yield from _keys(node, below, f"{key}.")


def is_clear(line, key, value):
    """Whether a line is one, and names the key, or the file or the run that the value names."""
    last = key.rpartition(".")[2]
    words = set(re.findall(r"[\w.+-]+", line.replace("1e+30", "1e30")))
    named = last in line or value in line or words & set(value.strip("[]").split(","))
    return "\n" not in line and "Traceback" not in line and bool(named)
