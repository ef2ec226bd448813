"""A training that takes turns is the training that does not."""

import pytest
from lightning import seed_everything

from energy_at.benchmark.rows import StepwiseFit
from tests.helpers.running import TINY_BN, prepared, states_equal


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
