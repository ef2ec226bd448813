"""A training that takes turns is the training that does not."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import seed_everything

from energy_at.benchmark.measure import count_flops
from energy_at.benchmark.rows import StepwiseFit, make_row
from energy_at.benchmark.scenarios import Setting
from tests.helpers.running import CONF, TINY_BN, prepared, states_equal


def test_a_run_that_takes_turns_ends_at_the_weights_of_one_that_does_not(tmp_path):
    options = (
        *TINY_BN,
        "trainer.max_epochs=1",
        "callbacks.best=null",
        "callbacks.last=null",
        "schedule=constant",
    )
    whole = prepared(tmp_path / "whole", *options, "trainer.limit_train_batches=5")
    whole.trainer.fit(whole.module, whole.data)
    seed_everything(0, verbose=False)
    stepped = prepared(tmp_path / "stepped", *options)

    def fit(pauses):
        stepped.trainer.callbacks.append(pauses)
        stepped.trainer.fit(stepped.module, stepped.data)

    row = StepwiseFit(fit, steps=2, images=32)
    row.turn()
    assert not states_equal(whole.module, stepped.module)
    row.steps = 3
    row.turn()
    assert states_equal(whole.module, stepped.module)
    row.close()
    assert stepped.trainer.global_step == 5


def test_an_error_inside_a_run_reaches_the_thread_that_waits():
    def fit(pauses):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        StepwiseFit(fit, steps=1, images=1)


def test_a_run_that_ends_too_early_is_an_error():
    with pytest.raises(RuntimeError, match="ended before"):
        StepwiseFit(lambda _: None, steps=1, images=1)


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
