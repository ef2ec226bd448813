"""A message names the key that was typed, not the one that takes its value."""

import pytest
from omegaconf import OmegaConf

from energy_at.config.nodes import nodes_in, with_key
from energy_at.core.rules import ArgumentError


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("reg.weight", "reg.weight=-1 must be a number"),
        ("reg.terms.der.weight", "reg.weight=-1 must be a number"),
        ("attack.eps", "threat.eps=8/256 must be a number"),
        ("attack.steps", "attack.steps=-1 must be a number"),
    ],
)
def test_the_key_is_the_one_that_was_typed(key, line):
    OmegaConf.register_new_resolver("half_of", lambda _: -1, replace=True)
    cfg = OmegaConf.create(
        {
            "reg": {"weight": -1, "terms": {"der": {"weight": "${reg.weight}"}}},
            "threat": {"eps": "8/256"},
            "attack": {"eps": "${half_of:${threat.eps}}"},
        }
    )
    assert str(with_key(cfg, key, ArgumentError("weight", -1, "a number"))) == line


def test_groups_that_repeat_others_are_left_out():
    cfg = OmegaConf.create({"a": {"b": {"c": 1}, "d": None}, "e": "${a}", "f": [{"g": 1}]})
    assert [node._get_full_key(None) for node in nodes_in(cfg)] == ["", "a", "a.b"]
