"""Scenarios of the benchmark: what may be chosen, what they share, and their sizes."""

from importlib.util import find_spec

import pytest
import torch
from hydra import compose, initialize_config_dir

from energy_at.benchmark.measure import count_flops
from energy_at.benchmark.rows import make_row
from energy_at.benchmark.scenarios import LIBRARIES, PRECISIONS, ROWS, SCENARIOS, Setting
from tests.helpers.running import CONF


def setting(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return Setting.of(compose("benchmark", ["dataset=digits", *overrides]), torch.device("cpu"))


def test_rows_of_libraries_that_are_not_installed_are_left_out():
    found = setting()
    installed = [row for row in ROWS if row not in LIBRARIES or find_spec(row)]
    assert found.scenarios == list(SCENARIOS)
    assert found.rows == installed
    assert found.precisions == list(PRECISIONS)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("scenarios=[fgsm,nothing]", r"^scenarios must be fgsm, .*, got 'nothing'"),
        ("rows=[theirs]", r"^rows must be reference, .*, got 'theirs'"),
        ("rows=[torchattacks]", r"rows=\[torchattacks\]: torchattacks is not installed"),
        ("precisions=[fp16]", r"^precisions must be fp32 or bf16.*, got 'fp16'"),
        ("steps=0", "steps must be an integer >= 1"),
        ("attack_steps=none", "attack_steps must be an integer >= 1"),
        ("sampler_steps=0", "sampler_steps must be an integer >= 1"),
        ("warmup=-1", "warmup must be an integer >= 0"),
        ("training.compile=default", "gradalign takes: leave it out of scenarios="),
    ],
)
def test_what_cannot_be_chosen_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        setting(wrong)


def test_what_is_chosen_keeps_the_order_of_the_table():
    found = setting("scenarios=[pgd,fgsm]", "rows=[full,bare]", "precisions=[bf16,fp32]")
    assert (found.scenarios, found.rows) == (["fgsm", "pgd"], ["bare", "full"])
    assert found.precisions == ["fp32", "bf16"]


def test_a_training_is_that_of_the_command_with_what_all_rows_share():
    options = ("model.width=2", "attack_steps=3", "steps=5", "repeats=2", "warmup=0")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        shared = Setting.of(compose("benchmark", ["dataset=digits", *options]), torch.device("cpu"))
        trades, fgsm = (shared.training(name, "bf16") for name in ("trades_der", "fgsm"))
    assert (trades.loss.name, trades.reg.name, fgsm.reg.name) == ("TRADES", "DER", "none")
    assert (trades.attack.steps, fgsm.attack.steps) == (3, 1)
    for cfg in (trades, fgsm):
        assert (cfg.model.width, cfg.trainer.precision) == (2, "bf16-mixed")
        images = cfg.dataset.reader.n_train - cfg.dataset.val_size
        assert images >= shared.batch_size * shared.config.steps * shared.turns


@pytest.mark.slow
def test_the_sizes_of_scaling_change_the_work():
    options = ["dataset=digits", "dataset.batch_size=2", "model.width=2", "attack_steps=1"]
    flops = {}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        sizes = Setting.of(compose("benchmark", options), torch.device("cpu")).sizes()
        for name in ("1 x batch", "4 x batch", "4 x attack steps", "4 x optimizer steps"):
            row = make_row(sizes[name], "scaling", "bare", "fp32")
            flops[name] = count_flops(row)
    assert len(sizes) == 9
    assert flops["4 x batch"] == flops["4 x optimizer steps"] == 4 * flops["1 x batch"]
    assert flops["1 x batch"] < flops["4 x attack steps"] < flops["4 x batch"]
