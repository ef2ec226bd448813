"""A run that is watched: where it is, how it proceeds, and its curves."""

import functools
import itertools

import numpy as np
import pytest

from energy_at.training.loggers import MetricsCSV
from energy_at.watch.state import Watch
from tests.helpers.watching import PER_EPOCH, begin, state, train

# Where a run is


def test_an_empty_folder_waits_then_trains_then_ends(here, composed):
    folder = here / "run"
    folder.mkdir()
    watch = Watch(["run"])
    assert state(watch)["status"] == "waiting"
    run = begin(folder, composed)
    assert state(watch)["status"] == "waiting"
    train(run, [0])
    found = state(watch)
    assert (found["status"], found["step"], found["steps"]) == ("training", 4, 12)
    assert (found["epoch"], found["epochs"]) == (1, 3)
    assert found["seconds_left"] == 8 * 16 / 32
    assert not watch.has_ended
    train(run, [1, 2])
    assert state(watch)["status"] == "evaluating"
    run.write_results({"last": {"step": 12, "test": {"pgd20": 0.25, "n": 100}}})
    found = state(watch)
    assert (found["status"], found["detail"], found["step"]) == (
        "finished",
        "collapsed at step 12",
        12,
    )
    assert found["results"]["last/test/acc/pgd20"] == 25
    assert watch.has_ended


def test_a_finished_run_whose_log_ends_early_says_so(begun):
    begun.metrics_file.write_text("step,epoch,train/loss\n1,0,1\n2,0,1\n")
    begun.write_results({"last": {"step": 12, "test": {"pgd20": 0.25, "n": 100}}})
    found = state(Watch(["run"]))
    said = "metrics.csv is damaged: it ends at step 2, and the training at step 12"
    assert (found["status"], found["detail"]) == ("finished", said)


def test_a_run_that_was_killed_falls_silent(begun, monkeypatch):
    train(begun, [0])
    watch = Watch(["run"])
    assert state(watch)["status"] == "training"
    written = begun.metrics_file.stat().st_mtime
    monkeypatch.setattr("energy_at.watch.state.time.time", lambda: written + 600)
    found = state(watch)
    assert (found["status"], found["detail"]) == ("silent", "stopped, or stuck")
    assert found["age"] == pytest.approx(600)


@pytest.mark.parametrize("content", ["{}", '{"sets": []}', '{"sets": {"samples": {"fid": "a"}}}'])
def test_scores_of_samples_that_are_damaged_are_named_by_their_file(begun, content):
    file = begun.path / "samples" / "one" / "samples.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"sets": {"samples": {"fid": 3.5, "is": null}}}')
    assert state(Watch(["run"]))["samplings"] == {"one": {"sample/fid": 3.5}}
    file.write_text(content)
    with pytest.raises(ValueError, match=r"samples\.json is damaged: it holds no scores"):
        state(Watch(["run"]))


def test_a_job_that_failed_says_why(begun):
    (begun.path / "error.txt").write_text("the loss is nan at step 3\n")
    watch = Watch(["run"])
    found = state(watch)
    assert (found["status"], found["detail"]) == ("failed", "the loss is nan at step 3")
    assert watch.has_ended


def test_values_are_in_percent_and_the_gap_is_a_difference(begun):
    train(begun, [0, 1])
    found = state(Watch(["run"]))
    assert found["last"]["train/aae_share"] == 50
    assert found["last"]["train/delta_energy/marginal"] == 2
    assert found["last"]["val/acc/fgsm - val/acc/pgd10"] == pytest.approx(10)


def test_alarms_and_lost_robustness_are_marked(begun):
    train(begun, [0, 1, 2], alarm=7)
    assert state(Watch(["run"]))["marks"] == [
        {"name": "CO", "step": 7, "kind": "alarm", "text": "alarm: CO at step 7"},
        {
            "name": "CO",
            "step": 12,
            "kind": "onset",
            "text": "CO by held-out PGD accuracy since step 12",
        },
    ]


def test_a_network_that_is_at_chance_so_far_is_not_robust_yet(begun):
    train(begun, [0, 1], pgd=(0.1, 0.1), alarm=7)
    found = state(Watch(["run"]))
    assert (found["status"], found["detail"]) == ("training", "not robust yet")
    assert [mark["text"] for mark in found["marks"]] == ["alarm: CO at step 7, not robust yet"]


def test_a_rollback_that_repeats_epochs_makes_the_training_longer(begun, composed):
    train(begun, [0, 1])
    watch = Watch(["run"])
    planned = state(watch)
    log = MetricsCSV(begun.metrics_file)
    log.log_metrics({"epoch": 1, "alarm/rollback": 4.0, "alarm/repeated": 2.0}, step=2 * PER_EPOCH)
    log.save()
    longer = state(watch)
    assert longer["epochs"] == planned["epochs"] + 2 == composed.trainer.max_epochs + 2
    assert longer["steps"] == planned["steps"] + 2 * PER_EPOCH


def test_a_training_ends_at_its_largest_step(here, composed):
    shorter = composed.copy()
    shorter.trainer.max_steps = 7
    train(begin(here / "run", shorter), [0])
    assert state(Watch(["run"]))["steps"] == 7


def test_a_resumed_run_is_not_counted_twice(begun):
    train(begun, [0, 1])
    watch = Watch(["run"])
    before = state(watch)
    MetricsCSV(begun.metrics_file).truncate(PER_EPOCH + 1)
    train(begun, [1])
    after = state(watch)
    assert after["version"] > before["version"]
    assert (after["step"], after["steps"]) == (before["step"], before["steps"])
    (watched,) = watch.runs.values()
    assert len(watched.curves()["train/delta_energy/marginal"]) == 2 * PER_EPOCH


def logged(folder, values):
    """Points of a metric with these values at the steps from 0 on."""
    rows = [f"{step},0,{value}" for step, value in enumerate(values)]
    folder.metrics_file.write_text("\n".join(["step,epoch,train/loss", *rows]) + "\n")
    watch = Watch([str(folder.path)])
    watch.update()
    (run,) = watch.runs.values()
    return np.array(run.curves()["train/loss"]), watch.states()[0]["last"]["train/loss"]


def test_a_curve_of_any_length_stays_short_and_keeps_range_and_mean(begun):
    values = np.random.default_rng(0).normal(size=12_345)
    points, last = logged(begun, values)
    rounded = functools.partial(pytest.approx, rel=1e-4, abs=1e-8)
    assert len(points) <= 400
    assert points[:, 1].min() == rounded(values.min())
    assert points[:, 3].max() == rounded(values.max())
    parts = list(itertools.pairwise(np.linspace(0, len(values), 401).astype(int)))
    assert points[:, 2] == rounded([values[a:b].mean() for a, b in parts])
    assert points[:, 0] == rounded([np.arange(a, b).mean() for a, b in parts])
    assert last == values[-1]


def test_a_short_curve_keeps_every_value_and_a_nan_leaves_a_gap(begun):
    points, last = logged(begun, [1.0, float("nan"), 3.0, float("inf")])
    assert points.tolist() == [[0, 1, 1, 1], [2, 3, 3, 3]]
    assert last == 3


def test_jobs_join_a_sweep_as_they_begin(here, composed):
    (here / "sweep").mkdir()
    watch = Watch(["sweep"])
    assert len(watch.states()) == 1  # the folder itself may become a run
    for job, weight in enumerate((0, 2)):
        train(begin(here / "sweep" / str(job), composed, weight), [0])
        watch.update()
    assert [s["name"] for s in watch.states()] == ["0", "1"]
    assert [s["overrides"] for s in watch.states()] == ["reg.weight=0", "reg.weight=2"]
