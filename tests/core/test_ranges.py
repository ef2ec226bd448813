"""Rules of arguments by the class or function that takes them."""

import pytest

from energy_at.core.ranges import or_left_out, ranges_of, require_ranges
from energy_at.core.rules import ArgumentError, integer


def test_a_rule_is_asked_of_an_owner_or_of_named_arguments():
    class Attack:
        rate = -1

    for given in ({"owner": Attack()}, {"rate": -1}):
        with pytest.raises(ArgumentError, match="rate must be a finite number > 0, got -1"):
            require_ranges("attacks.SORA", **given)
    require_ranges("attacks.SORA", rate=1)


def test_a_function_has_the_rules_of_what_it_hands_its_arguments_to():
    rules = ranges_of("energy_at.attacks.pgd")
    assert {"steps", "alpha", "restarts", "std"} <= set(rules)
    liet = ranges_of("energy_at.attacks.LIET")
    assert liet["steps"].broken_by(2) is not None
    assert liet["alpha"].holds(None)  # left to the radius
    assert not liet["steps"].holds(None)
    assert ranges_of("my_package.MyAttack") == {}


def test_null_leaves_a_value_to_others():
    rule = integer(1)
    assert not rule.holds(None)
    assert or_left_out(rule).holds(None)
    assert or_left_out(rule).broken_by(0) == rule.must
