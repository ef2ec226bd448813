"""Rules for values: what a rule allows, and what it says of the rest."""

import math
import pickle

import numpy as np
import pytest

from energy_at.core.rules import (
    POSITIVE,
    SHARE,
    TRUTH,
    ArgumentError,
    integer,
    number,
    one_of,
    or_null,
    require,
    some_of,
)

RULES = {
    "integer": (
        integer(1, 3),
        "an integer from 1 to 3",
        (1, 3, np.int64(2)),
        (0, 4, 2.0, True, "1", None, [1]),
    ),
    "integer from": (integer(0), "an integer >= 0", (0, 10**12), (-1, math.inf, math.nan, False)),
    "number": (
        number(-1, 2),
        "a finite number >= -1 and <= 2",
        (-1, 2, 0.5, np.float32(1)),
        (-1.001, 2.001, math.nan, "1", None, True),
    ),
    "number from": (number(0), "a finite number >= 0", (0, 1e300), (-1e-9, math.inf, math.nan)),
    "positive": (POSITIVE, "a finite number > 0", (1e-300, 1), (0, -1, math.inf)),
    "share": (SHARE, "a finite number > 0 and < 1", (1e-9, 0.999), (0, 1, 1.5, math.nan)),
    "one of": (one_of("a", "b", "c"), "a, b or c", ("a", "c"), ("d", "", None, ["a"])),
    "some of": (
        some_of("last", "best"),
        "a list of last and best, such as [last]",
        (["last"], ("best", "last")),
        ([], "last", ["first"], None),
    ),
    "or null": (or_null(integer(1)), "an integer >= 1, or null", (None, 1), (0, "null")),
    "truth": (TRUTH, "true or false", (True, False), (0, 1, "true", None)),
}


@pytest.mark.parametrize(("rule", "must", "good", "bad"), RULES.values(), ids=RULES)
def test_a_rule_allows_what_it_says_and_nothing_else(rule, must, good, bad):
    for value in good:
        require("name", value, rule)
    for value in bad:
        with pytest.raises(ArgumentError) as refused:
            require("name", value, rule)
        assert str(refused.value) == f"name must be {must}, got {value!r}"


def test_an_error_that_a_worker_hands_over_is_the_same():
    error = ArgumentError("steps", 0, "an integer >= 1")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert (again.argument, again.value, again.must) == ("steps", 0, "an integer >= 1")
