"""Finished runs: their verdict, their score, and the checkpoint to use."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from energy_at.reporting.finished_run import FinishedRun, failed_jobs, finished_runs, run_status
from energy_at.runs.folder import RunFolder
from tests.helpers.logs import log_of, run_of, validation
from tests.helpers.reports import FAILED, LOST, SOUND, failing_sweep, write


@pytest.fixture
def ended(tmp_path):
    """A run of a status, with or without a best checkpoint, which a metric has chosen."""

    def make(kind, step=None, best=True, monitor="val/acc/pgd10"):
        run = run_of(None, kind, step)
        (tmp_path / "checkpoints").mkdir()
        if best:
            (tmp_path / "checkpoints" / "best.ckpt").touch()
        config = OmegaConf.create({"callbacks": {"best": {"monitor": monitor}}})
        vars(run).update(folder=RunFolder(tmp_path), config=config)
        return run

    return make


@pytest.mark.parametrize("steps", [2, 10])
@pytest.mark.parametrize(
    ("average", "expected"),
    [((0.1, 0.1, 0.1), "not robust"), ((0.1, 0.1, 0.4), "robust"), ((), "robust")],
)
def test_an_average_of_weights_that_never_left_chance_is_not_robust(average, expected, steps):
    """Its results are at chance, however good the live network is."""
    rows = [validation(step, pgd) for step, pgd in enumerate((0.1, 0.3, 0.4))]
    for row, accuracy in zip(rows, average, strict=False):
        row[f"val_ema/acc/pgd{steps}"] = accuracy
    config = OmegaConf.create({"dataset": {"val_size": 500, "classes": 10}})
    assert run_status(log_of(rows), config, {}).kind == expected


@pytest.mark.parametrize("kind", ["robust", "not logged"])
def test_the_last_checkpoint_is_used_where_nothing_was_lost(ended, kind):
    run = ended(kind)
    assert (run.usable, run.advice()) == ("last", "")


@pytest.mark.parametrize("monitor", ["val/acc/pgd10", "val_ema/acc/pgd10"])
@pytest.mark.parametrize("kind", ["collapsed", "overfitted"])
def test_the_most_robust_checkpoint_is_used_where_robustness_was_lost(ended, kind, monitor):
    run = ended(kind, 16, monitor=monitor)
    assert run.usable == "best"
    assert run.advice() == f"{kind} at step 16: use which=best, its checkpoint from before"


@pytest.mark.parametrize("kind", ["collapsed", "overfitted"])
def test_the_healthy_checkpoint_of_the_sentinel_is_used_where_there_is_no_best_one(ended, kind):
    run = ended(kind, 16, best=False)
    (run.folder.checkpoints / "healthy.ckpt").touch()
    assert run.usable == "healthy"
    assert run.advice() == f"{kind} at step 16: use which=healthy, its checkpoint from before"


@pytest.mark.parametrize(("kind", "expected"), [("collapsed", "robust"), ("not robust",) * 2])
def test_the_healthy_checkpoint_is_from_before_a_collapse(ended, kind, expected):
    run = ended(kind, 16 if kind == "collapsed" else None)
    vars(run)["results"] = {}
    assert run.status_at("healthy") == expected


@pytest.mark.parametrize(
    ("kind", "step", "best", "monitor"),
    [
        ("collapsed", 16, False, "val/acc/pgd10"),
        ("collapsed", 16, True, "val/acc/clean"),  # may be from after the collapse
        ("not robust", None, True, "val/acc/pgd10"),
    ],
)
def test_no_checkpoint_is_named_where_none_is_robust(ended, kind, step, best, monitor):
    run = ended(kind, step, best, monitor)
    assert run.usable is None
    assert run.advice() == f"{run.status}: no checkpoint of this run is robust"


def test_an_overfitted_network_is_a_result_where_there_is_no_best_one(ended):
    run = ended("overfitted", 16, best=False)
    assert (run.usable, run.advice()) == ("last", "")


def test_a_search_counts_a_run_that_is_no_result_as_zero(tmp_path):
    val = {"clean": 0.9, "pgd": 0.26, "n": 64}
    logs = {"guessed": (0.25,) * 12, "collapsed": LOST, "sound": SOUND}
    for (name, pgd), score in zip(logs.items(), (0.0, 0.0, 0.26), strict=True):
        folder = write(tmp_path / name, pgd=pgd)
        folder.write_results({"last": {**folder.results()["last"], "val": val}})
        assert FinishedRun(folder).score() == pytest.approx(score)


def test_held_out_images_are_those_of_the_log_where_no_evaluation_took_them(tmp_path):
    folder = write(tmp_path / "run")
    assert FinishedRun(folder).held_out_percent() == pytest.approx(100 * SOUND[-1])
    val = {"clean": 0.9, "pgd": 0.25, "n": 64}
    folder.write_results({"last": {**folder.results()["last"], "val": val}})
    assert FinishedRun(folder).held_out_percent() == pytest.approx(25)


def test_a_log_that_ends_before_its_training_is_damaged(tmp_path):
    folder = write(tmp_path / "run")
    last = FinishedRun(folder).steps
    assert folder.results()["last"]["step"] == last
    *rows, _, _ = folder.metrics_file.read_text().splitlines(keepends=True)
    folder.metrics_file.write_text("".join(rows))
    with pytest.raises(ValueError, match=rf"ends at step \d+, and the training at step {last}:"):
        FinishedRun(folder).status  # noqa: B018


@pytest.mark.parametrize("lost", [1, 5, "row"])
def test_a_log_whose_last_row_is_cut_or_lost_is_damaged(lost, tmp_path):
    folder = write(tmp_path / "run")
    text = folder.metrics_file.read_text()
    rows = text.count("\n") - 1
    folder.write_results(folder.results() | {"rows": rows})
    assert FinishedRun(folder).status.kind == "robust"
    cut = text[: text[:-1].rfind("\n") + 1] if lost == "row" else text[:-lost]
    folder.metrics_file.write_text(cut)
    with pytest.raises(ValueError, match=f"of its {rows} rows {rows - 1} are left"):
        FinishedRun(folder).status  # noqa: B018


def test_jobs_of_a_sweep_that_failed_are_named_with_their_reason(here, capsys):
    sweep = failing_sweep(Path("sweep"))
    assert [run.path for run in finished_runs(sweep)] == [Path("sweep/0")]
    assert capsys.readouterr().err == ""
    assert failed_jobs(sweep, alone=True) == FAILED
    first, _ = failed_jobs(sweep, alone=False)
    assert first.startswith("job sweep/1 failed: reg.weight=-1 must be")
