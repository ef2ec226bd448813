"""Which evaluations make an entry of a leaderboard, and in which form."""

import copy

import pytest

from energy_at.attacks import L2, Linf
from energy_at.attacks.autoattack import autoattack
from energy_at.attacks.registry import AttackKey
from energy_at.config.keys import compose_command
from energy_at.evaluation.robustbench import leaderboard_entry

pytest.importorskip("pyautoattack")
KEY = AttackKey("autoattack", "8/255")
RECORD = {
    "dataset": {"name": "cifar10", "split": "test", "images": 10_000, "of": 10_000},
    "accuracies": [
        {"attack": "clean", "eps_text": "", "accuracy": 0.8334},
        {"attack": "autoattack", "eps_text": "8/255", "accuracy": 0.43214},
    ],
    "checks": [{"passed": True}, {"passed": True}, {"passed": False}],
}


def config_of(dataset):
    return compose_command("train", ["model=wideresnet28_10", f"dataset={dataset}"])


def entry(attack=None, **data):
    record = copy.deepcopy(RECORD)
    record["dataset"] |= data
    attack = autoattack(Linf(8 / 255)) if attack is None else attack
    return leaderboard_entry(record, config_of(record["dataset"]["name"]), {KEY: attack})


def test_the_standard_attack_on_all_test_images_makes_an_entry():
    found = entry()
    assert found["clean_acc"] == "83.34"
    assert (found["autoattack_acc"], found["eps"], found["dataset"]) == (
        "43.21",
        "8/255",
        "cifar10",
    )
    assert (found["architecture"], found["additional_data"]) == ("WideResNet-28-10", False)
    assert list(found) == [
        "link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue",
        "architecture", "eps", "clean_acc", "reported", "autoattack_acc",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {"images": 1000},
        {"split": "val"},
        {"name": "svhn"},
        {"name": "cifar100", "attack": autoattack(L2(0.5))},  # of no leaderboard
        {"attack": autoattack(Linf(4 / 255))},
        {"attack": autoattack(Linf(8 / 255), steps=50)},
        {"attack": autoattack(Linf(8 / 255), queries=1000)},
        {"attack": autoattack(Linf(8 / 255)).attacks[0]},
    ],
)
def test_anything_less_makes_none(options):
    assert entry(**options) is None


def test_a_folder_that_is_called_as_a_data_set_makes_none():
    typed = ["dataset=folder", "dataset.root=data/cifar10", "dataset.size=32"]
    config = compose_command("train", typed)
    assert config.dataset.name == RECORD["dataset"]["name"]
    assert leaderboard_entry(RECORD, config, {KEY: autoattack(Linf(8 / 255))}) is None


def test_a_network_that_draws_random_numbers_makes_none():
    record = copy.deepcopy(RECORD)
    record["checks"][0]["passed"] = False
    assert leaderboard_entry(record, config_of("cifar10"), {KEY: autoattack(Linf(8 / 255))}) is None
