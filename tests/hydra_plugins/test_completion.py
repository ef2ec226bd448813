"""Completion offers every choice of a group, also in folders of it."""

from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.plugins import Plugins

from energy_at.config.versions import unchecked_help
from energy_at.core.files import CONF
from hydra_plugins.energy_at.completion import NestedCompletion


@pytest.fixture
def complete():
    Plugins.instance()
    plugin = NestedCompletion(ConfigLoaderImpl(create_config_search_path(CONF)))
    with unchecked_help():  # as in a command
        yield lambda line: plugin._query("train", line)


@pytest.mark.parametrize("group", ["experiment", "reg", "dataset"])
@pytest.mark.parametrize("before", ["", "+", "-m reg=der "])
def test_every_choice_of_a_group_is_offered(complete, group, before):
    files = Path(CONF, group).rglob("*.yaml")
    choices = {file.relative_to(Path(CONF, group)).with_suffix("").as_posix() for file in files}
    word = f"{before.split(' ')[-1]}{group}="
    assert complete(f"{before.rpartition(' ')[0]} {word}") == sorted(word + c for c in choices)


def test_choices_in_a_folder_are_those_that_begin_so(complete):
    assert complete("experiment=rivals/li") == [
        "experiment=rivals/liet", "experiment=rivals/liet_der",
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["reg=xyz", "experiment=rivals/xyz", "nosuch=a", "nosuch/a=b"])
def test_what_is_no_choice_has_no_answer(complete, word):
    assert complete(word) == []


def test_a_key_is_completed_with_its_value(complete):
    assert complete("seed=") == ["seed=0"]
