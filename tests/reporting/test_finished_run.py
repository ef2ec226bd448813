"""A finished run: its verdict, and the checkpoint to use."""

from pathlib import Path

import pytest

from energy_at.runs.folder import RunFolder
from tests.helpers.logs import log_of, run_of, validation


@pytest.fixture
def ended(tmp_path):
    """A run of a status, with or without a best checkpoint."""

    def make(kind, step=None, best=True, results=()):
        run = run_of(log_of([validation(8, 0.5), validation(16, 0.02)]), kind, step)
        (tmp_path / "checkpoints").mkdir()
        if best:
            (tmp_path / "checkpoints" / "best.ckpt").touch()
        vars(run).update(folder=RunFolder(Path(tmp_path)), results=dict(results))
        return run

    return make


@pytest.mark.parametrize("kind", ["robust", "not logged"])
def test_the_last_checkpoint_is_used_where_nothing_was_lost(ended, kind):
    run = ended(kind)
    assert (run.usable, run.advice()) == ("last", "")


@pytest.mark.parametrize("kind", ["collapsed", "overfitted"])
def test_the_best_checkpoint_is_used_where_robustness_was_lost(ended, kind):
    run = ended(kind, 16)
    assert run.usable == "best"
    assert run.advice().startswith(f"{kind} at step 16: use which=best, from before (PGD 50.0 %")


@pytest.mark.parametrize(
    ("kind", "step", "best", "results"),
    [
        ("collapsed", 16, False, {}),
        ("collapsed", 16, True, {"best": {"step": 24}}),  # chosen by something else than PGD
        ("not robust", None, True, {}),
    ],
)
def test_no_checkpoint_is_named_where_none_is_robust(ended, kind, step, best, results):
    run = ended(kind, step, best, results)
    assert run.usable is None
    assert run.advice() == f"{run.status}: no checkpoint of this run is robust"
