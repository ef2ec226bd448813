"""Configurations as text: what runs share, and where they differ."""

import functools

import pytest
from omegaconf import OmegaConf

from energy_at.reporting.describe import (
    MISSING,
    MethodLabel,
    as_number,
    differences,
    method_labels,
    setting,
)
from tests.helpers.running import TINY, config

composed = functools.cache(config)


def rows(*configs):
    columns = {str(i): OmegaConf.create(config) for i, config in enumerate(configs)}
    return differences(columns).rows


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


def test_a_setting_sends_nothing_to_the_terminal():
    assert setting([OmegaConf.create({"dataset": {"name": "a\x1b[31m\x07"}})]).isprintable()


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
    assert rows({"a": {}}, {"a": {"b": 1}}) == [("a.b", MISSING, "1")]


def test_values_are_written_as_typed():
    one = {"s": "8/255", "n": None, "t": True, "l": [1, 2], "f": 0.5}
    other = dict.fromkeys(one, 0)
    assert [row[1] for row in rows(one, other)] == ["8/255", "null", "true", "[1, 2]", "0.5"]


def test_a_key_that_repeats_another_is_in_its_row():
    one, other = ({"term": {"weight": w}, "weight": w, "sum": w} for w in (1, 2))
    assert rows(one, other) == [("weight (and 1 that repeat it)", "1", "2"), ("sum", "1", "2")]


def test_what_a_key_above_sets_and_the_class_of_a_named_choice_have_no_row():
    pair = [resolved(*TINY, f"reg=der{rest}") for rest in ("", "_gradalign")]
    found = [row[0] for row in differences(dict(zip("ab", pair, strict=True))).rows]
    assert not [key for key in found if "_target_" in key]
    one, other = (resolved(*TINY, "reg=der", f"reg.weight={w}", f"threat.eps={w}/255")
                  for w in (2, 8))  # fmt: skip
    found = [row[0] for row in differences({"a": one, "b": other}).rows]
    assert [key.partition(" ")[0] for key in found if "repeat" not in key][-1] == "reg.weight"
    assert not [key for key in found if key.startswith(("reg.terms", "attack.search.alpha"))]


def test_a_part_that_differs_alone_has_its_row():
    one, other = ({"reg": {"weight": 1, "terms": {"a": {"weight": w}}}} for w in (2, 3))
    assert rows(one, other) == [("reg.terms.a.weight", "2", "3")]
    one, other = ({"model": {"_target_": f"mine.{name}"}} for name in ("A", "B"))
    assert rows(one, other) == [("model", "mine.A", "mine.B")]


def test_keys_that_change_no_result_are_left_out():
    one, other = ({"seed": s, "logger": {"csv": s}, "loggers": s} for s in (1, 2))
    assert rows(one, other) == [("loggers", "1", "2")]


def test_two_methods_differ_in_their_regularizer_alone():
    found = differences({r: composed(*TINY, f"reg={r}") for r in ("none", "der")})
    assert found.columns == ("key", "none", "der")
    assert found.rows[0] == ("reg.name", "none", "DER")
    assert all(row[0].startswith("reg.") for row in found.rows)


# Names of methods


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (("attack=fgsm",), "FGSM-AT"),
        (("attack=rs_fgsm",), "RS-FGSM-AT"),
        (("attack=fgsm", "reg=der"), "FGSM-AT + DER"),
        (("attack=fgsm", "reg=der", "reg.weight=0"), "FGSM-AT"),
        (("attack=n_fgsm", "reg=aaer"), "N-FGSM-AT + AAER"),
        (("attack=pgd", "training.awp.gamma=0.01"), "PGD-AT + AWP"),
        (("attack=pgd", "reg=der", "training.awp.gamma=0.01"), "PGD-AT + DER + AWP"),
        (("attack=fgsm", "reg=der_gradalign"), "FGSM-AT + DER + GradAlign"),
        (("attack=fgsm", "reg=der_gradalign", "reg.der.weight=0"), "FGSM-AT + GradAlign"),
        (("attack=trades", "loss=trades"), "TRADES"),
        (("attack=trades", "loss=trades", "reg=der"), "TRADES + DER"),
        (("attack=fgsm", "loss=trades"), "TRADES (FGSM)"),
        (("attack=pgd", "loss=mart"), "MART (PGD)"),
        (("attack=trades", "loss=weat_adv"), "WEAT-adv"),
        (("attack=none",), "standard training"),
    ],
)
def test_a_method_is_named_by_attack_loss_regularizer_and_awp(overrides, name):
    assert str(MethodLabel.of(composed(*TINY, *overrides))) == name


def resolved(*overrides):
    return OmegaConf.create(OmegaConf.to_container(composed(*overrides), resolve=True))


def labels(*choices, typed=()):
    return list(map(str, method_labels([resolved(*TINY, *own) for own in choices], typed)))


def test_values_are_those_of_the_resolved_configuration():
    """A resume with more epochs has both numbers in what was typed."""
    found = labels(("trainer.max_epochs=12",), ("trainer.max_epochs=13",),
                   typed=["trainer.max_epochs"])  # fmt: skip
    assert found == ["FGSM-AT, trainer.max_epochs=12", "FGSM-AT, trainer.max_epochs=13"]


def test_a_weight_of_zero_is_the_base_method():
    found = labels(*[("reg=der", f"reg.weight={weight}") for weight in (0, 1, 5)],
                   typed=["reg", "reg.weight"])  # fmt: skip
    assert found == ["FGSM-AT", "FGSM-AT + DER, reg.weight=1", "FGSM-AT + DER, reg.weight=5"]


def test_settings_that_nobody_typed_are_named_by_as_few_as_needed():
    found = labels(("threat.eps=8/255",), ("threat.eps=16/255",), ("threat=l2",))
    assert found == ["FGSM-AT, threat.eps=8/255", "FGSM-AT, threat.eps=16/255",
                     "FGSM-AT, threat.eps=128/255"]  # fmt: skip


def test_the_choice_of_a_group_has_the_name_of_the_group():
    assert labels(("model=small",), ("model=resnet18",), typed=["model"]) == [
        "FGSM-AT, model=small",
        "FGSM-AT, model=resnet18",
    ]


def test_settings_of_a_regularizer_are_compared_among_runs_that_have_it():
    found = labels(("reg=der",), ("reg=aaer", "reg.weight=1"), typed=["reg", "reg.weight"])
    assert found == ["FGSM-AT + DER", "FGSM-AT + AAER"]


def test_every_typed_number_that_differs_is_named():
    found = labels(*[("reg=der", f"reg.weight={i}", f"reg.gamma={i}") for i in (1, 2)],
                   typed=["reg.weight", "reg.gamma"])  # fmt: skip
    assert found[0] == "FGSM-AT + DER, reg.weight=1, reg.gamma=1"


def test_runs_that_differ_in_what_changes_no_result_have_one_name():
    assert (
        labels(("seed=0",), ("seed=1", "logger=csv"), typed=["seed", "logger"]) == ["FGSM-AT"] * 2
    )


@pytest.mark.parametrize(
    ("value", "number"),
    [("8/255", 8 / 255), (3, 3.0), ("0.5", 0.5), (True, None), ("none", None), ("1/0", None)],
)
def test_numbers_and_fractions_are_numbers(value, number):
    assert as_number(value) == number


def test_many_typed_keys_that_differ_are_named_only_as_far_as_needed():
    one = ("trainer.max_epochs=2", "dataset.batch_size=8", "threat.eps=0.1", "optimizer.lr=0.1")
    other = ("trainer.max_epochs=3", "dataset.batch_size=16", "threat.eps=0.2", "optimizer.lr=0.2")
    typed = [override.partition("=")[0] for override in one]
    assert labels(one, other, typed=typed) == [
        "FGSM-AT, trainer.max_epochs=2",
        "FGSM-AT, trainer.max_epochs=3",
    ]
    assert labels(one[:2], other[:2], typed=typed) == [
        "FGSM-AT, trainer.max_epochs=2, dataset.batch_size=8",
        "FGSM-AT, trainer.max_epochs=3, dataset.batch_size=16",
    ]


def test_a_name_with_control_characters_steers_no_terminal():
    stranger = OmegaConf.merge(composed(*TINY), {"attack": {"name": "\x1b[31mX"}})
    assert str(MethodLabel.of(stranger)) == "\\x1b[31mX-AT"
