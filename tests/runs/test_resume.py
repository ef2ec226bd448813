"""Resumed runs: equal to uninterrupted ones, bit for bit; stopped, extended, refused."""

import csv
import errno
import itertools
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from lightning import Callback
from omegaconf import OmegaConf

from energy_at import train
from energy_at.config.build import reopen
from energy_at.data import ImageSet, Splits
from energy_at.data.own_images import facts
from energy_at.evaluation import final_results
from energy_at.reporting import comparison
from energy_at.reporting.figures import save
from energy_at.runs.checkpoints import read_checkpoint
from energy_at.runs.folder import RunFolder
from energy_at.runs.resume import _lacks_results, job_folder, open_job, open_resumed
from energy_at.watch.state import WatchedRun
from tests.helpers.running import (
    TINY,
    TINY_BN,
    assert_refused,
    config,
    everything,
    fitted,
    prepared,
    states_equal,
    train_in,
)
from tests.helpers.running import typed as in_process

pytestmark = pytest.mark.usefixtures("here")

SHORT = (*TINY, "trainer.enable_progress_bar=false", "dataset.subset=200", "schedule=constant")
EXACT = (*TINY_BN, "reg=der", "attack=rs_fgsm", "trainer.max_epochs=3", "dataset.batch_size=64")
EVERY_STEP = ("callbacks.last.every_n_steps=1",)
TIMES = {"perf/images_per_s"}


class Unplugged(Callback):
    """Fails after a step, as a machine does."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise KeyError("unplugged")


def rows(path):
    with (path / "metrics.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if k not in TIMES and v} for row in csv.DictReader(file)
        ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return fitted(folder, *EXACT, *EVERY_STEP), folder


@pytest.mark.parametrize(
    "step", [8, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 7, 13, 14, 20))]
)
def test_a_run_resumed_after_any_step_equals_the_whole_run(tmp_path, whole, step):
    reference, reference_folder = whole
    broken = prepared(tmp_path, *EXACT, *EVERY_STEP)
    assert reference.trainer.num_training_batches == 7
    broken.trainer.callbacks.insert(0, Unplugged(step))
    with pytest.raises(KeyError):
        broken.trainer.fit(broken.module, broken.data)
    again = fitted(tmp_path, *EXACT, *EVERY_STEP, checkpoint=RunFolder(tmp_path).checkpoint())
    assert again.trainer.global_step == 21
    assert states_equal(again.module, reference.module)
    assert rows(tmp_path) == rows(reference_folder)
    for which in ("last", "best"):
        ours, theirs = (
            read_checkpoint(RunFolder(folder).checkpoint(which))
            for folder in (tmp_path, reference_folder)
        )
        assert ours["global_step"] == theirs["global_step"]
        assert all(torch.equal(ours["state_dict"][k], v) for k, v in theirs["state_dict"].items())


def typed(folder, *overrides):
    command = [sys.executable, "-m", "energy_at.train", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    log = (folder / "log.txt").open("w")
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


@pytest.mark.slow
def test_a_run_killed_within_an_epoch_is_resumed_from_the_command_line(
    tmp_path, monkeypatch, capsys
):
    overrides = (
        *("dataset=synthetic", "model.width=2", "logger=csv", "reg=der", "attack=rs_fgsm"),
        *("trainer.max_epochs=2", "+dataset.reader.n_train=2048", "callbacks.energy.every=1"),
        *("validation.attacks.pgd.steps=2", "evaluation.attacks.pgd.steps=1"),
        "trainer.accelerator=cpu",
    )
    (tmp_path / "whole").mkdir()
    process = typed(tmp_path, *overrides, "hydra.run.dir=killed")
    metrics = tmp_path / "killed" / "metrics.csv"
    deadline = time.monotonic() + 300  # of a process that hangs
    while not (metrics.is_file() and metrics.read_text().count("\n") > 85):
        assert process.poll() is None, (tmp_path / "log.txt").read_text()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert metrics.read_text().count("\n") < 125  # killed in the second of two epochs of 62
    assert not (tmp_path / "killed" / "results.json").exists()
    monkeypatch.chdir(tmp_path)
    assert in_process(monkeypatch, capsys, train.main, "resume=killed")[0] == 0

    whole = fitted(tmp_path / "whole", *overrides[:-1])
    killed = read_checkpoint(RunFolder(tmp_path / "killed").checkpoint())
    assert killed["global_step"] == whole.trainer.global_step
    assert all(
        torch.equal(killed["state_dict"][k], v) for k, v in whole.module.state_dict().items()
    )
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    assert (tmp_path / "killed" / "results.json").is_file()


# Stopped and extended runs


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    """They take longer than everything else, and are looked at in tests of their own."""
    for module in (final_results, comparison):
        monkeypatch.setattr(module, "save", lambda *_: [])


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    return train_in(tmp_path_factory.mktemp("trained") / "run", *SHORT, "trainer.max_epochs=1")


@pytest.fixture
def run(trained_run, tmp_path):
    """A finished run in the working directory."""
    return shutil.copytree(trained_run, tmp_path / "run")


def test_a_finished_run_is_trained_again_only_further(type_train, run, tmp_path):
    results = (tmp_path / "run" / "results.json").read_bytes()
    for left in (".evaluated.json", ".lock", f".metrics.csv.{platform.node()}-0.part"):
        (run / left).write_text("")  # by processes that were killed
    code, _, err = type_train("resume=run")
    assert (code, err.count("\n")) == (1, 1)
    assert "run has finished: trainer.max_epochs above 1 trains it further" in err
    assert [path.name for path in run.rglob(".*")] == [".metrics_columns"]
    assert (tmp_path / "run" / "results.json").read_bytes() == results


@pytest.mark.parametrize(
    "lost",
    ["training", "best", "alarms", "last.val", "delta_energy.pdf", "half a delta_energy.png"],
)
def test_a_finished_run_that_has_lost_a_result_is_completed(type_train, run, monkeypatch, lost):
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert run / "delta_energy.pdf" in files
    if "delta_energy" in lost:
        monkeypatch.setattr(final_results, "save", save)
        figure = run / lost.split()[-1]
        figure.write_bytes(files[figure][: len(files[figure]) // 2])
        if not lost.startswith("half"):
            figure.unlink()
    else:
        results = json.loads((run / "results.json").read_text())
        *above, key = lost.split(".")
        del (results[above[0]] if above else results)[key]
        (run / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    assert type_train("resume=run")[0] == 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files


def lose_a_result(run):
    results = json.loads((run / "results.json").read_text())
    kept = {key: value for key, value in results.items() if key != "training"}
    (run / "results.json").write_text(json.dumps(kept))
    return results


def test_a_finished_run_is_completed_with_other_settings_of_its_trainer(type_train, run):
    results = lose_a_result(run)
    assert RunFolder(run).config().evaluation.subset is None
    quiet = ("trainer.enable_progress_bar=false", "trainer.max_epochs=1")
    assert type_train("resume=run", *quiet, "evaluation.subset=null")[0] == 0
    assert json.loads((run / "results.json").read_text()) == results
    assert type_train("resume=run", *quiet)[0] == 1


def test_results_are_not_completed_by_another_evaluation(type_train, run):
    """What is left of them would be mixed with numbers of other attacks."""
    lose_a_result(run)
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, out, err = type_train("resume=run", "evaluation.attacks.pgd.steps=3")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "run has finished, with part of its results: resume=run without evaluation" in err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files


def test_every_result_of_a_finished_run_is_missed(run):
    folder = RunFolder(run)
    results = folder.results()
    assert not _lacks_results(folder)
    parts = results.keys() - {"rows"}  # which a log that has lost some cannot give again
    without = [{k: v for k, v in results.items() if k != part} for part in parts]
    for which, images in itertools.product(("last", "best"), ("val", "test")):
        left = {k: v for k, v in results[which].items() if k != images}
        without.append(results | {which: left})
    for left in without:
        folder.write_results(left)
        assert _lacks_results(folder), results.keys() - left.keys()
    folder.write_results(results)
    assert open_job(folder.config(), folder, [], in_sweep=True) is None
    (run / "delta_energy.png").unlink()
    assert _lacks_results(folder)
    assert open_job(folder.config(), folder, [], in_sweep=True) is not None


def test_what_is_left_of_results_is_kept_as_it_is(type_train, run):
    folder = RunFolder(run)
    results = folder.results()
    results["training"]["seconds"] = 123.0
    results["last"]["test"]["clean"] = 0.125
    folder.write_results({k: v for k, v in results.items() if k != "alarms"})
    assert type_train("resume=run")[0] == 0
    assert folder.results() == results


class LogsItself(Callback):
    """Logs without a step, as a callback of the user may."""

    def on_fit_start(self, trainer, *_):
        trainer.logger.log_metrics({"mine/start": 1.0})

    def on_train_batch_end(self, trainer, *_):
        trainer.logger.log_metrics({"mine/x": 2.0})


def test_rows_without_a_step_are_read_reported_and_resumed(type_train, tmp_path):
    own = "+callbacks.mine={_target_: tests.runs.test_resume.LogsItself}"
    short = (*SHORT, "trainer.limit_train_batches=2", "trust=[tests]")
    assert type_train(*short, own, "trainer.max_epochs=1", "hydra.run.dir=run")[0] == 0
    assert type_train("resume=run", "trainer.max_epochs=2", "trust=[tests]")[0] == 0
    log = RunFolder(tmp_path / "run").log()
    assert list(log["train/loss"].steps) == [1, 2, 3, 4]
    assert list(log["mine/start"].steps) == [0, 2]
    mine = list(log["mine/x"].steps)
    assert (len(mine), mine) == (4, sorted(mine))
    assert len(comparison.by_method(comparison.compare([RunFolder(tmp_path / "run")]))) == 1


@pytest.mark.slow
def test_an_extended_run_says_so(type_train, run, tmp_path):
    type_train("resume=run", "trainer.max_epochs=2")
    folder = RunFolder(tmp_path / "run")
    assert folder.config().trainer.max_epochs == 2
    assert folder.overrides()[-1] == "trainer.max_epochs=2"
    assert json.loads(folder.results_file.read_text())["last"]["step"] == 14


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("resume=", "resume= must be the path of one folder"),
        ("resume=nowhere", "nowhere is not a run folder"),
    ],
)
def test_what_is_no_run_is_not_resumed(type_train, wrong, said):
    assert_refused(type_train, said, *SHORT, wrong)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: p.unlink(), "has no checkpoint last.ckpt"),
        (lambda p: p.write_bytes(p.read_bytes()[:1000]), "is damaged or truncated"),
        (lambda p: torch.save({"state_dict": {}, "f": rows}, p), "more than tensors and plain"),
    ],
    ids=["missing", "truncated", "code"],
)
def test_a_bad_checkpoint_gets_one_line_and_the_run_is_left_alone(run, type_train, damage, said):
    damage(Path("run/checkpoints/last.ckpt"))
    assert_refused(type_train, said, "resume=run")


def test_resume_refuses_to_make_another_run_of_it(run, type_train):
    said = "resume continues a run as it was, so reg=none cannot change"
    assert_refused(type_train, said, "resume=run", "reg=none")


def test_resume_trains_on_for_longer(run, type_train):
    code, _, err = type_train("resume=run", "trainer.max_epochs=2")
    assert code == 0, err
    with Path("run/metrics.csv").open() as file:
        steps = [int(r["step"]) for r in csv.DictReader(file) if r["train/loss"]]
    assert steps == list(range(1, 15))


# Killed where it hurts


class Killed(BaseException):
    """As SIGKILL: nothing handles it."""


def kill(*_, **__):
    raise Killed


def killed_in(monkeypatch, type_train, place, *argv):
    """Types a training that is killed where it calls ``place``."""
    with monkeypatch.context() as patch:
        patch.setattr(place, kill)
        with pytest.raises(Killed):
            type_train(*argv)


def results_of(folder):
    results = RunFolder(Path(folder)).results()
    results["training"].pop("seconds")
    return results


STEP = "energy_at.training.callbacks.monitors.EnergyMonitor.on_train_batch_start"
COST = "energy_at.evaluation.final_results.cost"


def test_a_run_that_is_trained_further_and_killed_is_resumed(type_train, run, monkeypatch):
    folder = RunFolder(run)
    shorter = folder.results_file.read_bytes()
    killed_in(monkeypatch, type_train, STEP, "resume=run", "trainer.max_epochs=2")
    assert folder.config().trainer.max_epochs == 2
    assert not folder.has_ended
    assert (run / "results_1_epochs.json").read_bytes() == shorter
    with pytest.raises(FileNotFoundError, match="has not finished"):
        folder.results()
    assert WatchedRun(folder).state("run")["status"] != "finished"
    assert type_train("resume=run")[0] == 0
    assert folder.results()["last"]["step"] == 14


def test_a_run_killed_before_its_first_checkpoint_starts_over(type_train, here, monkeypatch):
    command = (*SHORT, "trainer.max_epochs=1", "hydra.run.dir=new")
    killed_in(monkeypatch, type_train, STEP, *command)
    assert not RunFolder(here / "new").has_checkpoint()
    for again in (("resume=new",), command):
        killed_in(monkeypatch, type_train, STEP, *again)
    assert_refused(type_train, "new starts it over", *command, "seed=1")
    code, _, err = type_train("resume=new")
    assert (code, err) == (0, "")
    assert RunFolder(here / "new").results()["last"]["step"] == 7
    assert len(rows(here / "new")) == 8


@pytest.mark.parametrize("place", [COST, "energy_at.runs.folder.RunFolder.write_results"])
def test_a_run_killed_while_it_finishes_is_completed(type_train, run, monkeypatch, place):
    whole = results_of("run")
    RunFolder(run).results_file.unlink()
    killed_in(monkeypatch, type_train, place, "resume=run")
    assert not RunFolder(run).has_ended
    with monkeypatch.context() as patch:  # what was evaluated is not evaluated again
        patch.setattr("energy_at.evaluation.robustness.Evaluator.accuracies", kill)
        code, _, err = type_train("resume=run")
    assert (code, err) == (0, "")
    assert results_of("run") == whole
    assert [path.name for path in run.glob(".*")] == [".metrics_columns"]


FACTS = facts(Splits(*(ImageSet(torch.zeros(80, 1, 8, 8).byte(), torch.arange(80) % 4),) * 2))
SAME = (*SHORT, "trainer.max_epochs=1", "hydra.run.dir=run")


@pytest.mark.parametrize("resume", [SAME, (*SAME, "seed=0", "threat.eps=16/510")])
def test_the_same_command_completes_a_run_and_then_keeps_it(type_train, run, resume):
    whole = results_of("run")
    RunFolder(run).results_file.unlink()
    code, _, err = type_train(*resume)
    assert (code, err) == (0, "")
    assert results_of("run") == whole
    before = everything()
    for left in ((), (".lock",), (".evaluated.json", ".lock")):  # killed at the very end
        for name in left:
            (run / name).write_text("")
        code, out, err = type_train(*SAME)
        assert (code, out, err) == (0, f"{run} has finished before: kept\n", "")
        assert everything() == before


@pytest.mark.parametrize("shown", [True, False])
def test_the_same_training_is_completed_with_another_bar(run, shown):
    folder = RunFolder(run)
    folder.results_file.unlink()
    cfg = folder.config(to_build=False)
    cfg.trainer.enable_progress_bar = shown
    opened = open_job(cfg, folder, folder.overrides(), in_sweep=False)
    assert opened is not None
    assert opened[0].trainer.enable_progress_bar is shown
    assert opened[2] == folder.checkpoint("last")


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed=7", "run already holds a run with seed=0, not 7: "),
        ("reg=der", "run already holds a run without reg=der: "),
        ("logger=none", "run already holds a run with logger=csv, not none: "),
        ("scale=cpu", "run already holds a run without scale=cpu: "),
        ("dataset.subset=null", "run already holds a run with dataset.subset=200, not null"),
        ("trainer.max_epochs=2", "run trainer.max_epochs=2 continues it, hydra.run.dir=FOLDER"),
    ],
)
def test_another_command_leaves_a_run_alone(type_train, run, finished, change, said):
    if not finished:
        RunFolder(run).results_file.unlink()
    assert_refused(type_train, said, *SAME, change)


@pytest.mark.parametrize("key", ["trainer.max_epochs=1", "trainer.max_steps=1"])
def test_a_training_is_not_resumed_to_an_earlier_end(type_train, run, key):
    assert type_train(f"resume={run}", "trainer.max_epochs=2")[0] == 0
    RunFolder(run).results_file.unlink()
    assert_refused(type_train, f"{key}: {run} has trained ", f"resume={run}", key)
    said = f"{run} already holds a run with trainer.max_epochs=2, not 1: resume={run} continues it"
    assert_refused(type_train, said, *SAME)


@pytest.mark.parametrize(
    ("repeated", "said"),
    [
        ({"repeated": 1, "repeated_steps": 7}, None),
        ({"repeated": 1, "repeated_steps": 6}, "max_steps=7: .* has trained 8 already"),
        ({"repeated": 0, "repeated_steps": 7}, "max_epochs=1: .* has trained 2 already"),
        (None, "max_epochs=1: .* has trained 2 already"),
        ({"repeated": "x"}, "max_epochs=1: .* has trained 2 already"),
    ],
)
def test_epochs_that_a_rollback_has_repeated_count_once(run, repeated, said):
    folder = RunFolder(run)
    folder.results_file.unlink()
    cfg = folder.config()
    cfg.trainer.max_steps = 7
    folder.note_resume(cfg, [])
    state = torch.load(folder.checkpoint(), weights_only=True)
    state["loops"]["fit_loop"]["epoch_progress"]["current"]["ready"] = 2
    state |= {"global_step": 14, "sentinel": {"rollback": repeated}}
    torch.save(state, folder.checkpoint())
    if said is None:
        assert open_resumed(str(run), [])[2] == folder.checkpoint()
        return
    with pytest.raises(ValueError, match=f"trainer.{said}"):
        open_resumed(str(run), [])


def test_of_a_finished_run_no_command_is_said_to_continue_it(type_train, run):
    said = "run with seed=0, not 7: hydra.run.dir=FOLDER starts a new one elsewhere"
    assert_refused(type_train, said, *SAME, "seed=7")


@pytest.mark.parametrize(
    ("found", "typed"),
    [
        (
            {f"dataset.{name}": [0.5] if name in ("mean", "std", "names") else 8 for name in FACTS},
            ("dataset=npz", "dataset.file=my.npz"),
        ),
        (
            {"init_sha256": 64 * "0", "model.shortcut": "plain"},
            ("init=a.pt", "model=preactresnet18"),
        ),
    ],
)
def test_what_a_run_has_found_out_makes_no_other_command(tmp_path, found, typed):
    asked, known = config(*typed), config(*typed)
    for key, value in found.items():
        OmegaConf.update(known, key, value)
    folder = RunFolder.create(tmp_path, known, typed)
    cfg, _, checkpoint, _ = open_job(asked, folder, typed, in_sweep=False)
    assert {key: OmegaConf.select(cfg, key) for key in found} == found
    assert checkpoint is None
    for key in found:
        other = config(*typed)
        OmegaConf.update(other, key, "typed")
        with pytest.raises(ValueError, match=f"already holds a run with {key}=.*, not typed"):
            open_job(other, folder, [*typed, f"{key}=typed"], in_sweep=False)


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        (["reg=der"], ["reg=none"], "with reg=der, not none: "),
        (["reg=der"], [], "with reg=der, not the default: "),
        (["seed=1"], ["reg=der", "seed=2"], "without reg=der: "),  # a group before a key
        (["seed=1"], ["experiment=co", "seed=2"], "with seed=1, not 2: "),  # one of many keys
        ([], ["training.eps_warmup=2"], "with training.eps_warmup=0, not 2: "),
        ([], ["optimizer.lr=0.5"], "with optimizer.lr="),
    ],
)
def test_of_another_command_that_is_named_which_the_user_types(tmp_path, first, then, said):
    RunFolder.create(tmp_path, config(*first), first)
    with pytest.raises(ValueError, match=f"already holds a run {said}"):
        open_job(config(*then), RunFolder(tmp_path), then, in_sweep=False)


@pytest.mark.parametrize(
    ("first", "again", "is_same"),
    [
        (["dataset=npz", "dataset.file=a.npz"], ["dataset=npz", "dataset.file={}/a.npz"], True),
        (["dataset=npz", "dataset.file=a.npz"], ["dataset=npz", "dataset.file={}/b.npz"], False),
        (
            ["dataset=npz", "dataset.file=d/a.npz"],
            ["dataset=npz", "dataset.file=a.npz", "dataset.root={}/d"],
            True,
        ),
        (["dataset=folder", "dataset.root=d"], ["dataset=folder", "dataset.root={}/d"], True),
        (["dataset=folder", "dataset.root=d"], ["dataset=folder", "dataset.root={}"], False),
        (["init=a.pt"], ["init={}/../{name}/a.pt"], True),
        (["init=a.pt"], [], False),
    ],
)
def test_the_same_file_by_another_path_is_the_same(here, first, again, is_same):
    again = [one.format(here, name=here.name) for one in again]
    known = config(*first)
    for name in ("classes", "channels", "size"):
        known.dataset[name] = known.dataset[name] or 4
    folder = RunFolder.create("run", known, first)
    if is_same:
        assert open_job(config(*again), folder, again, in_sweep=False) is not None
        return
    with pytest.raises(ValueError, match="already holds a run with "):
        open_job(config(*again), folder, again, in_sweep=False)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[:-1], "of the 8 rows that were logged until the last checkpoint"),
        (
            lambda content: content[:0],
            "of the 8 rows that were logged until the last checkpoint, 0 are",
        ),
        (lambda content: content.replace(b"\n1,0,", b"\n1,x,"), "line 2: column epoch holds 'x'"),
        (lambda content: content + b"junk\n", "line 10: it has 1 cells for "),
    ],
)
@pytest.mark.parametrize("in_sweep", [False, True])
def test_a_finished_run_whose_log_is_damaged_is_not_kept(run, damage, said, in_sweep):
    folder, cfg = RunFolder(run), RunFolder(run).config()
    assert open_job(cfg, folder, folder.overrides(), in_sweep=in_sweep) is None
    folder.metrics_file.write_bytes(damage(folder.metrics_file.read_bytes()))
    with pytest.raises(ValueError, match=f"{run}/metrics.csv is damaged: {said}.*restore the file"):
        open_job(cfg, folder, folder.overrides(), in_sweep=in_sweep)


def test_rows_that_were_lost_are_missed_before_anything_is_written(type_train, run):
    log = RunFolder(run).metrics_file
    log.write_bytes(log.read_bytes()[:-1])
    assert_refused(
        type_train, "8 rows that were logged until the", "resume=run", "trainer.max_epochs=2"
    )


@pytest.mark.parametrize("damage", ['{"last": 3}', '{"last": {"st', "[]"])
def test_damaged_results_are_no_end_of_a_run(type_train, run, damage):
    RunFolder(run).results_file.write_text(damage)
    for longer in ((), ("trainer.max_epochs=2",)):
        assert_refused(type_train, "run/results.json is damaged", "resume=run", *longer)


def test_a_row_that_was_cut_after_the_checkpoint_is_logged_again(type_train, run):
    folder = RunFolder(run)
    whole = folder.metrics_file.read_bytes()
    folder.results_file.unlink()
    with folder.metrics_file.open("ab") as file:
        file.write(b"8,1,0.\xff")
    assert type_train("resume=run")[0] == 0
    assert folder.metrics_file.read_bytes() == whole


@pytest.mark.parametrize("argv", [("resume=run", "trainer.max_epochs=2"),
                                  (*SHORT, "hydra.run.dir=new")])  # fmt: skip
def test_a_run_in_use_is_left_alone(type_train, run, argv):
    with RunFolder(Path("run")).in_use(), RunFolder(Path("new")).in_use():
        assert_refused(type_train, f"is in use by process {os.getpid()}", *argv)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda names: names[:-2], "/shift_p, not val/delta_energy/shift_p99"),
        (lambda names: names.replace("/clean,train/acc/adv", "/adv,train/acc/clean"), "/adv, not"),
        (lambda names: names.removesuffix(",val/delta_energy/shift_p99"), "has 35 cells for 34"),
    ],
)
def test_a_log_with_other_names_of_columns_is_damaged(type_train, run, change, said):
    (run / "results.json").unlink()
    log = run / "metrics.csv"
    names, _, rest = log.read_text().partition("\n")
    log.write_text(f"{change(names)}\n{rest}")
    assert_refused(type_train, said, "resume=run")


def test_a_run_that_another_process_ends_meanwhile_is_left_alone(type_train, run, monkeypatch):
    """Two resumes of one run: one of them longer, and done before the other begins to train."""
    results = (run / "results.json").read_bytes()
    (run / "results.json").unlink()
    in_use = RunFolder.in_use

    def ended_first(folder):
        cfg = OmegaConf.load(run / "config.yaml")
        cfg.trainer.max_epochs = 3
        OmegaConf.save(cfg, run / "config.yaml")
        (run / "results.json").write_bytes(results)
        return in_use(folder)

    monkeypatch.setattr(RunFolder, "in_use", ended_first)
    code, _, err = type_train("resume=run")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("error: run has finished: trainer.max_epochs above 3 trains it further")
    assert OmegaConf.load(run / "config.yaml").trainer.max_epochs == 3
    assert (run / "results.json").read_bytes() == results


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metrics_rows": "many"}, "metrics_rows is no number of rows"),
        ({"metrics_rows": -1}, "metrics_rows is no number of rows"),
        ({"sentinel": "abc"}, "sentinel is no dict"),
        ({"loops": {}}, "its fit_loop has no progress"),
        ({"loops": {"fit_loop": {}}}, "its fit_loop has no progress"),
        ({"loops": 3}, "loops is no dict"),
        ({"state_dict": 3}, "state_dict must hold tensors"),
        ({"state_dict": {"net": 3}}, "state_dict must hold tensors"),
        ({"callbacks": []}, "callbacks is no dict"),
        ({"state_dict": {"a": torch.ones(1)}}, "is of another network than run/config.yaml"),
        ({"optimizer_states": [{"state": 3, "param_groups": []}]}, "is damaged ("),
    ],
)
def test_a_tampered_checkpoint_gets_one_line(run, type_train, change, said):
    path = RunFolder(Path("run")).checkpoint()
    torch.save({**read_checkpoint(path), **change}, path)
    code, _, err = type_train("resume=run", "trainer.max_epochs=2")
    assert (code, err.count("\n")) == (1, 1)
    assert "last.ckpt" in err
    assert said in err


def test_damage_of_the_best_checkpoint_is_found_before_anything_is_written(type_train, run):
    RunFolder(run).results_file.unlink()
    best = RunFolder(Path("run")).checkpoint("best")
    state = read_checkpoint(best)
    torch.save({name: state[name] for name in ("state_dict", "epoch")}, best)
    assert_refused(type_train, "best.ckpt holds weights without the state", "resume=run")


def test_a_complex_weight_is_refused_and_a_strange_callback_needs_no_word(type_train, run):
    path = RunFolder(Path("run")).checkpoint()
    state = read_checkpoint(path)
    name = next(iter(state["state_dict"]))
    weights = {**state["state_dict"], name: state["state_dict"][name].to(torch.complex64)}
    torch.save({**state, "state_dict": weights}, path)
    longer = ("resume=run", "trainer.max_epochs=2")
    assert_refused(type_train, "last.ckpt is of another network than run/config.yaml", *longer)
    torch.save({**state, "callbacks": {**state["callbacks"], "Strange": {"a": 1}}}, path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        code, _, err = type_train(*longer)
    assert (code, err) == (0, "")
    assert not [one for one in said if "callbacks" in str(one.message)]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *((name, f"{name} is a folder, not the file which a training makes there")
          for name in (".evaluated.json", ".lock", "delta_energy.pdf", "delta_energy.png",
                       "error.txt", "checkpoints/healthy.ckpt", "results.json")),
        ("checkpoints", "checkpoints is a file, not the folder which a training makes there"),
    ],
)  # fmt: skip
def test_a_name_that_is_taken_is_refused_before_the_training(type_train, run, name, said):
    place = Path("run", name)
    for file in ("results.json", "delta_energy.pdf", "delta_energy.png"):
        Path("run", file).unlink()
    if name == "checkpoints":
        Path("new").mkdir()
        Path("new", name).touch()
        assert_refused(type_train, said, *SHORT, "hydra.run.dir=new")
        return
    place.mkdir()
    assert_refused(type_train, said, "resume=run")
    Path("new", name).mkdir(parents=True)
    assert_refused(type_train, said, *SHORT, "hydra.run.dir=new")


def test_a_damaged_record_is_refused_before_anything_is_written(type_train, run):
    RunFolder(Path("run")).environment_file.write_text('{"overrides": 3}')
    said = "environment.json is damaged: overrides must be a list"
    assert_refused(type_train, said, "resume=run", "trainer.max_epochs=2")


def test_a_full_disk_gets_one_line_that_names_the_run(type_train, here, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(csv.DictWriter, "writerows", full)
    code, _, err = type_train(*SHORT, "hydra.run.dir=new")
    assert (code, err) == (1, f"error: {here}/new/metrics.csv: No space left on device\n")


# A sweep that is re-run


SWEEP = (
    "-m",
    *SHORT,
    "trainer.max_epochs=1",
    "evaluation.checkpoints=[last]",
    "hydra.sweep.dir=all",
)


@pytest.mark.slow
def test_a_sweep_re_run_in_another_order_finds_its_jobs(type_train):
    assert type_train(*SWEEP, "seed=0,1")[0] == 0
    results = {path: path.read_bytes() for path in Path("all").glob("*/results.json")}
    cut_off = RunFolder(Path("all/1"))  # as if killed before its first checkpoint
    shutil.rmtree(cut_off.checkpoints)
    cut_off.results_file.unlink()
    code, out, err = type_train(*SWEEP, "seed=1,0")
    assert (code, err) == (0, "[1/2] seed=1\n[2/2] seed=0\n")
    assert "all/0 has finished before: kept" in out
    assert {path.name for path in Path("all").iterdir() if path.is_dir()} == {"0", "1"}
    assert [RunFolder(Path("all") / job).config().seed for job in "01"] == [0, 1]
    assert Path("all/0/results.json").read_bytes() == results[Path("all/0/results.json")]
    again, before = (json.loads(text) for text in (cut_off.results_file.read_text(),
                                                   results[cut_off.results_file]))  # fmt: skip
    assert again["last"] == before["last"]


def test_a_job_leaves_the_folder_of_another_job_to_it(tmp_path):
    cfg = config(*TINY)
    one, two = (RunFolder.create(tmp_path / n, cfg, [f"seed={n}"]) for n in "01")
    assert job_folder(tmp_path / "0", tmp_path, ["seed=1"]) == two
    assert job_folder(tmp_path / "0", tmp_path, ["seed=7"]).path == tmp_path / "2"
    assert job_folder(tmp_path / "5", tmp_path, ["seed=7"]).path == tmp_path / "5"
    one.environment_file.write_text("{")
    assert job_folder(tmp_path / "0", tmp_path, ["seed=0"]).path == tmp_path / "3"  # 2 is claimed


@pytest.mark.parametrize("left", ["metrics.csv", "results.json", "checkpoints/last.ckpt"])
def test_a_folder_with_files_of_another_run_is_left_alone(type_train, tmp_path, left):
    file = tmp_path / "run" / left
    file.parent.mkdir(parents=True)
    file.write_text("precious")
    code, _, err = type_train(*SHORT, "hydra.run.dir=run")
    assert code == 1
    assert "of another run: choose another hydra.run.dir" in err
    assert file.read_text() == "precious"


def test_an_empty_folder_survives_a_resume_of_it(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_resumed(str(tmp_path), [])
    assert tmp_path.is_dir()


@pytest.mark.parametrize("which", ["last", "best"])
def test_a_run_without_validation_ends_with_its_last_checkpoint(type_train, tmp_path, which):
    code, _, _ = type_train(*SHORT, "trainer.max_steps=3", "hydra.run.dir=run")
    assert code == 0
    assert (which in RunFolder(tmp_path / "run").results()) == (which == "last")


@pytest.mark.slow
def test_a_terminated_run_says_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "energy_at.train", *SHORT, "trainer.max_epochs=100000",
               "hydra.run.dir=run"]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not RunFolder(tmp_path / "run").has_checkpoint():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped at step" in err
    assert f"resume={tmp_path / 'run'} continues it" in err


def test_weights_without_their_training_are_nothing_to_resume(type_train, run, tmp_path):
    path = RunFolder(tmp_path / "run").checkpoint()
    torch.save({"state_dict": read_checkpoint(path)["state_dict"]}, path)
    code, _, err = type_train("resume=run", "trainer.max_epochs=2")
    assert (code, err.count("\n")) == (1, 1)
    assert "holds weights without the state of their training" in err


def test_a_checkpoint_of_another_network_is_named(type_train, run, tmp_path):
    type_train(*SHORT, "trainer.max_epochs=1", "model.width=6", "hydra.run.dir=wide")
    shutil.copy("wide/checkpoints/last.ckpt", "run/checkpoints/last.ckpt")
    with pytest.raises(ValueError, match="is of another network than run"):
        reopen(RunFolder(Path("run")))
