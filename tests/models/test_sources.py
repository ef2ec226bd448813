"""Code bases: what each builds that its files do not say."""

import pytest

from energy_at.core.rules import ArgumentError
from energy_at.models import preactresnet18
from energy_at.models.sources import SOURCES, detected, has_final_norm, options_of

NORM = {"mean": [0.5] * 3, "std": [0.25] * 3}


def keys(**options):
    net = preactresnet18(channels=3, classes=4, width=2, **NORM, **options)
    return set(net.net.state_dict())


@pytest.mark.parametrize("prefix", ["", "module.", "0."])
def test_the_names_of_the_weights_say_whether_a_norm_is_before_the_classifier(prefix):
    for final_norm in (True, False):
        found = {f"{prefix}{key}" for key in keys(final_norm=final_norm)}
        assert has_final_norm(found) is final_norm
        assert options_of("fast_adversarial", found)["final_norm"] is final_norm


def test_robustbench_has_both_changes_of_the_network_or_neither():
    with_norm, without = keys(), keys(final_norm=False)
    assert options_of("robustbench", with_norm)["shortcut"] == "activated"
    assert options_of("robustbench", without)["shortcut"] == "plain"


def test_layer_names_that_one_code_base_alone_has_are_detected():
    assert detected({"layer.0.block.0.batchnorm_0.weight"}) == "deepmind"
    assert detected({"conv1.weight", "model_preact_hl1.1.weight"}) == "gradalign"
    assert detected(keys()) is None


def test_every_code_base_sets_options_that_the_network_has():
    for source in SOURCES:
        options = options_of(source, keys())
        options.setdefault("shortcut", "activated")  # TRADES has no network with one
        assert keys(**options | {"shortcut": "plain"}) == keys()
        preactresnet18(channels=3, classes=4, width=2, **NORM, **options)


def test_an_unknown_code_base_is_refused():
    with pytest.raises(ArgumentError, match=r"did you mean trades\?"):
        options_of("trade", keys())
