"""What no training has written into the files of a run."""

import pytest
from omegaconf import OmegaConf

from energy_at.runs.damage import damage_of_config, damage_of_results
from tests.runs.test_folder import PLAIN


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("dataset.classes", 0, "dataset.classes=0 must be an integer >= 1"),
        ("dataset.batch_size", "abc", "dataset.batch_size=abc must be an integer >= 1, or null"),
        ("trainer.max_epochs", [1], "trainer.max_epochs=[1] must be an integer >= 1, or null"),
        ("trainer.max_steps", "x", "trainer.max_steps=x must be an integer >= -1"),
        ("attack.steps", "two", "attack.steps=two must be an integer >= 0, or null"),
        ("reg.weight", "abc", "reg.weight=abc must be a finite number, or null"),
        ("reg", 3, "it has no group reg"),
        ("reg.terms", "der", "reg.terms is no group of keys"),
        ("threat.ball", [], "threat.ball is no group of keys"),
        ("model.weights", b"abc", "Object of type bytes"),
        ("seed", "???", "is damaged: seed is missing"),
    ],
)
def test_a_setting_of_another_type_is_named(key, value, said):
    cfg = OmegaConf.create(PLAIN)
    assert damage_of_config(cfg) is None
    OmegaConf.update(cfg, key, value)
    assert said in damage_of_config(cfg)


GOOD = {"step": 4, "test": {"clean": 1, "pgd20": 0.5, "n": 9}}


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ({"last": GOOD, "training": {"seconds": 1.5}, "held_out": {"chance": 0.1}}, None),
        ({"last": {**GOOD, "step": "a"}}, "last must hold a step and accuracies"),
        ({"best": {**GOOD, "val": 3}}, "best.val must hold accuracies and n"),
        ({"last": {"test": {"clean": 1.5, "n": 9}}}, "last.test.clean=1.5 must be from 0 to 1"),
        ({"held_out": {"chance": "a"}}, "held_out must hold numbers"),
        ({"status": []}, "status must be a mapping"),
    ],
)
def test_results_of_another_kind_are_named(results, said):
    assert damage_of_results(results) == said
