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
    MissingFilesError,
    as_typed,
    integer,
    nearest,
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
        require(rule, name=value)
    for value in bad:
        with pytest.raises(ArgumentError) as refused:
            require(rule, name=value)
        assert str(refused.value) == f"name must be {must}, got {value!r}"


def test_a_misspelt_name_is_met_by_the_nearest():
    for rule, wrong in (
        (one_of("warn", "rollback"), "rolback"),
        (some_of("val", "test"), ["tset"]),
    ):
        with pytest.raises(ArgumentError, match=r"\(did you mean (rollback|test)\?\), got"):
            require(rule, name=wrong)
    assert one_of("warn", "rollback").broken_by("x") == "warn or rollback"
    assert (
        or_null(one_of("fgsm", "pgd")).broken_by("pdg")
        == "fgsm or pgd, or null (did you mean pgd?)"
    )
    assert one_of("der").broken_by("x") == "der"


def test_the_first_of_several_arguments_that_breaks_the_rule_is_named():
    with pytest.raises(ArgumentError, match=r"^steps must be an integer >= 1, got 0$"):
        require(integer(1), n=3, steps=0, restarts=0)


def test_missing_files_are_an_argument_and_a_file_error():
    error = MissingFilesError("root", "data", "a folder of CIFAR10")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, FileNotFoundError)
    assert str(again) == str(error) == "root must be a folder of CIFAR10, got 'data'"


def test_an_error_that_a_worker_hands_over_is_the_same():
    error = ArgumentError("steps", 0, "an integer >= 1")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert (again.argument, again.value, again.must) == ("steps", 0, "an integer >= 1")


def test_values_are_shown_as_they_are_typed():
    shown = {
        "null": None,
        "true": True,
        "0": 0,
        "1e-05": 1e-5,
        "a b": "a b",
        "[1,[null,x]]": [1, [None, "x"]],
    }
    assert {text: as_typed(value) for text, value in shown.items()} == {
        text: text for text in shown
    }


@pytest.mark.parametrize(
    ("word", "names", "name"),
    [
        ("tb", ("csv", "tensorboard", "wandb"), "tensorboard"),
        ("epsilon", ("evaluation.subset", "threat.eps"), "threat.eps"),
        ("regularizer.weight", ("regret.weigh", "reg.weight"), "reg.weight"),
        ("attack.step_size", ("attack.steps", "attack.alpha"), "attack.alpha"),
        ("step", ("steps", "piecewise"), "piecewise"),
    ],
)
def test_a_word_of_the_field_is_nearest_to_the_name_here(word, names, name):
    assert nearest(word, names)[0] == name
    assert nearest(name, names)[0] == name


def test_capitals_and_dashes_do_not_hide_the_nearest_name():
    names = ("cifar10", "cifar100", "wideresnet28_10", "wideresnet34_10", "der")
    for word, name in {
        "CIFAR-10": "cifar10", "WRN-28-10": "wideresnet28_10", "DER": "der", "Cifar_100": "cifar100"
    }.items():  # fmt: skip
        assert nearest(word, names, 1) == [name]


def test_a_key_of_another_group_and_the_beginning_of_a_key_are_near():
    assert nearest("attack.eps", ["attack.steps", "threat.eps"], 1) == ["threat.eps"]
    assert nearest("dataset.batch", ["dataset.cache", "dataset.batch_size"], 1) == [
        "dataset.batch_size"
    ]
