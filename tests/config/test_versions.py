"""Hydra, OmegaConf and Python as they are installed here, and Python 3.14 as it checks help."""

import warnings
from argparse import ArgumentParser
from importlib.metadata import version

import pytest
from hydra._internal.utils import get_args_parser
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from energy_at.config.versions import (
    OF_COMMANDS,
    allow,
    instantiate,
    register_resolver,
    unchecked_help,
)
from tests.helpers.running import CONF

IS_1_3 = version("hydra-core").startswith("1.3")


def check_help(parser, action):
    """That of Python 3.14, where its formatter looks for ``%`` in the help."""
    if action.help:
        try:
            _ = "%" in action.help
        except TypeError as error:
            raise ValueError("badly formed help string") from error


def test_argparse_of_python_3_14_takes_the_help_of_hydra(monkeypatch):
    add_argument = ArgumentParser.add_argument

    def checked(parser, *names, **options):
        action = add_argument(parser, *names, **options)
        parser._check_help(action)
        return action

    monkeypatch.setattr(ArgumentParser, "_check_help", check_help, raising=False)
    monkeypatch.setattr(ArgumentParser, "add_argument", checked)
    if IS_1_3:
        with pytest.raises(ValueError, match="badly formed help string"):
            get_args_parser()
    with unchecked_help():
        assert "--multirun" in get_args_parser().format_usage()
    assert ArgumentParser._check_help is check_help


def test_argparse_without_that_check_stays_as_it_is(monkeypatch):
    for owner in ArgumentParser.__mro__:
        if "_check_help" in vars(owner):
            monkeypatch.delattr(owner, "_check_help")
    with unchecked_help():
        assert not hasattr(ArgumentParser, "_check_help")


def fail(**arguments):
    raise OSError("broken")


def test_an_error_of_a_target_names_its_key():
    target = {"_target_": f"{__name__}.fail", "size": 1}
    cfg = OmegaConf.create({"model": {"net": target}})
    with pytest.raises(InstantiationException) as met:
        instantiate(cfg, **allow(instantiate=[target["_target_"]]))
    assert str(met.value).endswith("full_key: model.net")
    assert isinstance(met.value.__cause__, OSError)


def test_a_resolver_replaces_one_of_its_name_and_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_resolver("of_this_test", lambda: 1)
        register_resolver("of_this_test", lambda: 2)
    assert OmegaConf.create({"key": "${of_this_test:}"}).key == 2


def test_hydra_gets_a_list_of_targets_where_it_takes_one():
    assert allow(instantiate=["a.B"]) == ({} if IS_1_3 else {"_execution_whitelist_": ["a.B"]})
    assert allow(main=["a.B"]) == ({} if IS_1_3 else {"execution_whitelist": ["a.B"]})


def test_what_hydra_builds_for_a_command_is_on_its_list():
    named = {
        callback["_target_"]
        for file in CONF.rglob("*.yaml")
        for callback in (OmegaConf.load(file).get("hydra", {}).get("callbacks") or {}).values()
    }
    assert named
    assert named <= set(OF_COMMANDS)
