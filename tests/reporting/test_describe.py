"""Configurations in words: what runs share, and where they differ."""

import functools

import pytest
from omegaconf import OmegaConf

from energy_at.reporting.describe import NOT_THERE, differences, setting
from tests.helpers.running import TINY, config

composed = functools.cache(config)


def rows(*configs, apart=()):
    columns = {str(i): OmegaConf.create(config) for i, config in enumerate(configs)}
    return differences(columns, apart).rows


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("dataset=cifar10", "scale=cpu", "experiment=co"),
         "CIFAR-10 (10,000 training images), PreActResNet18 of width 16, L-inf, eps 8/255"),
        (("dataset=cifar100", "model=wideresnet28_10", "threat=l2"),
         "CIFAR-100, WideResNet-28-10, L2, eps 128/255"),
        (("dataset=synthetic", "model=small", "threat.eps=0.3", "trainer.max_epochs=1"),
         "synthetic images, small CNN of width 32, L-inf, eps 0.3, 1 epoch"),
    ],
)  # fmt: skip
def test_a_setting_names_data_network_threat_and_length(overrides, said):
    assert setting([composed(*overrides)]).startswith(said)


def test_what_differs_is_in_no_setting():
    configs = [composed(*TINY, f"threat.eps={eps}/255", "trainer.max_epochs=2") for eps in (8, 16)]
    assert setting(configs) == "synthetic images, small CNN of width 4, 2 epochs"


def test_what_a_configuration_does_not_say_is_left_out():
    assert setting([OmegaConf.create({"seed": 0})]) == ""
    assert setting([OmegaConf.create({"dataset": {"name": "mine"}})]) == "mine"


def test_each_key_that_differs_has_a_row():
    assert rows({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 5, "d": 3}}) == [
        ("b.c", "2", "5")
    ]


def test_equal_configurations_differ_in_nothing():
    assert rows({"a": {"b": [1, 2]}}, {"a": {"b": [1, 2]}}) == []


def test_a_key_that_only_some_have_is_marked_as_missing():
    assert rows({"a": {}}, {"a": {"b": 1}}) == [("a", "{}", NOT_THERE), ("a.b", NOT_THERE, "1")]


def test_values_are_written_as_typed():
    one = {"s": "8/255", "n": None, "t": True, "l": [1, 2], "f": 0.5}
    other = dict.fromkeys(one, 0)
    assert [row[1] for row in rows(one, other)] == ["8/255", "null", "true", "[1, 2]", "0.5"]


def test_a_key_that_repeats_another_is_in_its_row():
    one, other = ({"term": {"weight": w}, "weight": w, "sum": w} for w in (1, 2))
    assert rows(one, other) == [("weight (and term.weight)", "1", "2"), ("sum", "1", "2")]


def test_keys_that_change_no_result_are_left_out():
    one, other = ({"seed": s, "logger": {"csv": s}, "loggers": s} for s in (1, 2))
    assert rows(one, other, apart=("seed", "logger")) == [("loggers", "1", "2")]


def test_two_methods_differ_in_their_regularizer_alone():
    found = differences({r: composed(*TINY, f"reg={r}") for r in ("none", "der")}, ())
    assert found.columns == ("key", "none", "der")
    assert found.rows[0] == ("reg.name", "none", "DER")
    assert all(row[0].startswith("reg.") for row in found.rows)
