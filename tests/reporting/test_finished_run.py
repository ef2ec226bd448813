"""A finished run: its verdict, and the checkpoint to use."""

import pytest
from omegaconf import OmegaConf

from energy_at.runs.folder import RunFolder
from tests.helpers.logs import run_of


@pytest.fixture
def ended(tmp_path):
    """A run of a status, with or without a best checkpoint, which a metric has chosen."""

    def make(kind, step=None, best=True, monitor="val/acc/pgd"):
        run = run_of(None, kind, step)
        (tmp_path / "checkpoints").mkdir()
        if best:
            (tmp_path / "checkpoints" / "best.ckpt").touch()
        config = OmegaConf.create({"callbacks": {"best": {"monitor": monitor}}})
        vars(run).update(folder=RunFolder(tmp_path), config=config)
        return run

    return make


@pytest.mark.parametrize("kind", ["robust", "not logged"])
def test_the_last_checkpoint_is_used_where_nothing_was_lost(ended, kind):
    run = ended(kind)
    assert (run.usable, run.advice()) == ("last", "")


@pytest.mark.parametrize("monitor", ["val/acc/pgd", "val_ema/acc/pgd"])
@pytest.mark.parametrize("kind", ["collapsed", "overfitted"])
def test_the_most_robust_checkpoint_is_used_where_robustness_was_lost(ended, kind, monitor):
    run = ended(kind, 16, monitor=monitor)
    assert run.usable == "best"
    assert run.advice() == f"{kind} at step 16: use which=best, its checkpoint from before"


@pytest.mark.parametrize(
    ("kind", "step", "best", "monitor"),
    [
        ("collapsed", 16, False, "val/acc/pgd"),
        ("collapsed", 16, True, "val/acc/clean"),  # may be from after the collapse
        ("not robust", None, True, "val/acc/pgd"),
    ],
)
def test_no_checkpoint_is_named_where_none_is_robust(ended, kind, step, best, monitor):
    run = ended(kind, step, best, monitor)
    assert run.usable is None
    assert run.advice() == f"{run.status}: no checkpoint of this run is robust"


def test_an_overfitted_network_is_a_result_where_there_is_no_best_one(ended):
    run = ended("overfitted", 16, best=False)
    assert (run.usable, run.advice()) == ("last", "")
