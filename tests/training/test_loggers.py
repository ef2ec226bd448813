"""metrics.csv, and what W&B keeps of a run: what is logged comes back; and a W&B that fails."""

import csv
import math
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import jaxtyping
import pytest
import wandb
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from energy_at import train
from energy_at.config import register_resolvers
from energy_at.overfitting.alarms import ALARMS, find_column
from energy_at.reporting import wandb_workspace
from energy_at.reporting.finished_run import FinishedRun
from energy_at.reporting.panels import Panel, Scatter, specification
from energy_at.runs.checkpoints import read_checkpoint
from energy_at.runs.folder import RunFolder
from energy_at.runs.metrics_log import read_metrics_log
from energy_at.training import loggers
from energy_at.training.loggers import DummyExperiment, MetricsCSV, csv_logger
from tests.helpers.running import CONF, TINY, fitted, prepared, train_in, typed
from tests.helpers.wandb_files import Kept, without_key
from tests.helpers.wandb_server import serving


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.csv"


def rows(path):
    """The rows with what is in them, as numbers."""
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def log(logger, *steps, **metrics):
    for step in steps:
        logger.log_metrics({"epoch": float(step // 10), "value": step / 8} | metrics, step=step)


def logged(*steps, **metrics):
    return [{"step": s, "epoch": s // 10, "value": s / 8} | metrics for s in steps]


def test_rows_come_back_as_written(path):
    logger = MetricsCSV(path)
    log(logger, *range(25))
    logger.save()
    assert rows(path) == logged(*range(25))
    assert path.read_text().splitlines()[:3] == ["step,epoch,value", "0,0,0.0", "1,0,0.125"]


@pytest.mark.parametrize("value", [0.0, -1e-9, 1 / 3, 2.5e12, 1.17549435e-38, -123456.789])
def test_values_keep_seven_digits(path, value):
    logger = MetricsCSV(path)
    logger.log_metrics({"x": value}, step=1)
    logger.save()
    (row,) = rows(path)
    assert row["x"] == pytest.approx(value, rel=5e-7, abs=0)


def test_what_is_not_finite_comes_back_too(path):
    logger = MetricsCSV(path)
    logger.log_metrics({"a": float("nan"), "b": float("inf"), "c": float("-inf")}, step=1)
    logger.save()
    (row,) = rows(path)
    assert math.isnan(row["a"])
    assert (row["b"], row["c"]) == (math.inf, -math.inf)


def test_the_step_is_that_of_the_call(path):
    logger = MetricsCSV(path)
    logger.log_metrics({"step": 3.0, "x": 1.0}, step=7)
    logger.save()
    assert rows(path) == [{"step": 7, "x": 1}]


def test_a_call_without_a_step_is_of_the_step_of_the_row_before(path):
    logger = MetricsCSV(path)
    logger.log_metrics({"x": 1.0})
    log(logger, 7)
    logger.log_metrics({"x": 2.0})
    logger.save()
    logger.log_metrics({"x": 3.0})
    logger.truncate(3)
    logger.log_metrics({"x": 4.0})
    MetricsCSV(path).save()
    logger.save()
    resumed = MetricsCSV(path)
    resumed.log_metrics({"x": 5.0})
    resumed.save()
    assert [row["step"] for row in rows(path)] == [0, 7, 7, 7, 7]
    assert [row.get("x") for row in rows(path)] == [1, None, 2, 4, 5]


def test_a_name_with_a_comma_comes_back(path):
    for names in (["a,b", 'c"d'], ["e,f"]):
        logger = MetricsCSV(path)
        logger.log_metrics(dict.fromkeys(names, 1.0), step=1)
        logger.save()
    assert rows(path) == [{"step": 1, "a,b": 1, 'c"d': 1}, {"step": 1, "e,f": 1}]
    assert set(read_metrics_log(path).curves) == {"step", "a,b", 'c"d', "e,f"}


def test_steps_and_epochs_are_whole_numbers_in_the_file(path):
    logger = MetricsCSV(path)
    logger.log_metrics({"epoch": 12_345_678.0}, step=123_456_789)
    logger.save()
    assert path.read_text() == "step,epoch\n123456789,12345678\n"


def test_nothing_is_written_before_there_is_something(tmp_path):
    logger = csv_logger(tmp_path / "run")
    logger.save()
    assert logger.count() == 0
    assert not (tmp_path / "run").exists()
    log(logger, 1)
    logger.finalize("success")
    assert rows(tmp_path / "run" / "metrics.csv") == logged(1)


def test_columns_that_appear_later_are_empty_before(path):
    logger = MetricsCSV(path)
    log(logger, 1, 2)
    logger.save()
    log(logger, 3, late=0.5)
    log(logger, 4)
    logger.save()
    log(logger, 5, latest=0.25)
    log(logger, 6, late=0.125)
    logger.save()
    expected = logged(1, 2) + logged(3, late=0.5) + logged(4)
    assert rows(path) == expected + logged(5, latest=0.25) + logged(6, late=0.125)
    lines = path.read_text().splitlines()
    assert lines[0] == "step,epoch,value,late,latest"
    assert {line.count(",") for line in lines} == {4}


def test_columns_keep_their_order_whatever_the_order_of_a_row(path):
    logger = MetricsCSV(path)
    logger.log_metrics({"a": 1.0, "b": 2.0}, step=1)
    logger.log_metrics({"b": 4.0, "a": 3.0}, step=2)
    logger.save()
    assert path.read_text().splitlines() == ["step,a,b", "1,1.0,2.0", "2,3.0,4.0"]


def test_an_existing_file_resumes(path):
    first = MetricsCSV(path)
    log(first, 1, 2)
    first.save()
    second = MetricsCSV(path)
    assert second.count() == 2
    log(second, 3)
    log(second, 4, late=1.5)
    second.finalize("success")
    assert second.count() == 4
    assert rows(path) == logged(1, 2, 3) + logged(4, late=1.5)


def test_count_is_what_a_reader_finds(path):
    logger = MetricsCSV(path)
    assert logger.count() == 0
    log(logger, *range(13))
    assert logger.count() == 13 == len(rows(path))
    log(logger, 13)
    assert logger.count() == 14 == len(rows(path))
    assert MetricsCSV(path).count() == 14


@pytest.mark.parametrize("kept", range(6))
@pytest.mark.parametrize("reopened", [False, True])
def test_truncate_keeps_exactly_the_first_rows(path, kept, reopened):
    logger = MetricsCSV(path)
    log(logger, *range(3))
    log(logger, 3, 4, late=2.0)
    logger.save()
    if reopened:
        logger = MetricsCSV(path)
    before = rows(path)
    logger.truncate(kept)
    assert logger.count() == kept
    assert (rows(path) if kept else []) == before[:kept]  # without rows there is no file
    log(logger, 77)
    logger.save()
    assert rows(path) == before[:kept] + logged(77)
    assert MetricsCSV(path).count() == kept + 1


def test_truncate_counts_rows_that_are_not_in_the_file_yet(path):
    logger = MetricsCSV(path)
    log(logger, 1)
    logger.save()
    log(logger, 2, 3)
    logger.truncate(2)
    assert rows(path) == logged(1, 2)


def test_truncate_to_more_than_there_is_changes_nothing(path):
    logger = MetricsCSV(path)
    log(logger, 1, 2)
    logger.truncate(5)
    assert rows(path) == logged(1, 2)
    assert logger.count() == 2


def test_a_cut_and_rewritten_file_is_that_of_the_uninterrupted_run(tmp_path):
    whole, cut = MetricsCSV(tmp_path / "a" / "metrics.csv"), MetricsCSV(tmp_path / "b/metrics.csv")
    for logger in (whole, cut):
        log(logger, *range(20))
        log(logger, 20, late=1.0)
        logger.save()
    log(cut, *range(21, 30))
    cut.save()
    cut = MetricsCSV(cut.path)
    cut.truncate(21)
    for logger in (whole, cut):
        log(logger, *range(21, 40))
        logger.finalize("success")
    assert cut.path.read_bytes() == whole.path.read_bytes()
    assert {p.name for p in cut.path.parent.iterdir()} == {"metrics.csv", ".metrics_columns"}


def test_20000_rows_take_no_time(path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would take half of it
    start = time.process_time()
    logger = MetricsCSV(path)
    names = [f"train/metric_{i}" for i in range(12)]
    for step in range(20_000):
        logger.log_metrics(
            dict.fromkeys(names, step / 7) | {"epoch": float(step // 400)}, step=step
        )
        if step % 50 == 49:
            logger.save()
        if step % 400 == 399:
            logger.log_metrics({"val/acc/pgd10": 0.5, "epoch": float(step // 400)}, step=step)
    assert logger.count() == 20_050
    assert MetricsCSV(path).count() == 20_050
    logger.truncate(20_000)
    assert logger.count() == 20_000
    assert time.process_time() - start < 6


# What W&B keeps of a run, read back from its own offline file


LOGGED = (*TINY, "logger=csv_wandb", "trainer.accelerator=cpu", "evaluation.subset=20")


@pytest.fixture
def no_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_key(monkeypatch, tmp_path / "home")


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """A run with everything on, and what W&B keeps of it."""
    here = tmp_path_factory.mktemp("offline")
    with pytest.MonkeyPatch.context() as patch:
        without_key(patch, here / "home")
        train_in(
            here / "run", *LOGGED, "trainer.max_epochs=2", "reg=der", "reg.weight=0.5",
            "validation.attacks.pgd.steps=10", "evaluation.attacks.pgd.steps=20",
            "logger.wandb.log_checkpoints=true", "logger.wandb.group=mine",
            "logger.wandb.tags=[a,b]", "logger.wandb.notes=why",
        )  # fmt: skip
    return here / "run", Kept(here / "run")


@pytest.fixture(scope="module")
def alarmed(tmp_path_factory):
    """What W&B keeps of a run whose sentinel starts at anything: RO first, then CO."""
    here = tmp_path_factory.mktemp("alarmed")
    with pytest.MonkeyPatch.context() as patch:
        without_key(patch, here / "home")
        limits = {"divergence": 1e-6, "patience": 1, "aae_share": 1e-6, "alignment": 0.999}
        run = fitted(
            here / "run", *LOGGED, "dataset.subset=256", "dataset.batch_size=16", "seed=0",
            "trainer.max_epochs=2", "attack=rs_fgsm", "threat.eps=0.3",
            "trainer.val_check_interval=1",
            "validation.attacks.pgd.steps=1", "callbacks.sentinel.classes=100000",
            *(f"callbacks.sentinel.thresholds.{name}={value}" for name, value in limits.items()),
        )  # fmt: skip
        wandb_of(run).finish()
    return Kept(here / "run")


def test_every_step_reaches_wandb_with_its_step(offline):
    _, kept = offline
    steps = [row for row in kept.rows if "train/delta_energy/marginal" in row]
    assert [int(row["trainer/global_step"]) for row in steps] == list(range(1, 29))
    assert all({"train/aae_share", "train/delta_energy/joint", "lr"} <= r.keys() for r in steps)
    validated = [row for row in kept.rows if "val/acc/pgd10" in row]
    assert [int(row["trainer/global_step"]) for row in validated] == [14, 28]


def test_wandb_holds_every_number_that_the_csv_holds(offline):
    folder, kept = offline
    with (folder / "metrics.csv").open(newline="") as file:
        csv_rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    *history, last = kept.rows
    assert len(csv_rows) == len(history)
    assert any(key.startswith("figures/delta_energy") for key in last)
    for row, sent in zip(csv_rows, history, strict=True):
        step = row.pop("step")
        assert step == sent["trainer/global_step"]
        assert {key: sent[key] for key in row} == pytest.approx(row, rel=1e-6)


def test_the_step_is_the_axis_of_every_metric_and_extremes_are_kept(offline):
    _, kept = offline
    metrics = kept.of("metric")
    axes = {m.glob_name: m.step_metric for m in metrics if m.step_metric}
    assert axes.get("*") == "trainer/global_step"
    summed = {m.name: m.summary for m in metrics if m.summary.max or m.summary.min}
    assert summed.keys() == loggers.SUMMARIES.keys()
    assert summed["val/acc/pgd10"].max
    assert summed["train/delta_energy/marginal"].min
    assert summed["train/delta_energy/marginal"].max
    assert summed["train/loss"].min
    pgd = [row["val/acc/pgd10"] for row in kept.rows if "val/acc/pgd10" in row]
    assert kept.summary["val/acc/pgd10.max"] == max(pgd)
    assert kept.summary["val/acc/pgd10.last"] == pgd[-1]


def test_wandb_knows_the_run(offline):
    folder, kept = offline
    run = kept.run
    assert (run.project, run.run_group, run.job_type) == ("energy_at", "mine", "train")
    assert (list(run.tags)[:2], run.notes) == (["a", "b"], "why")
    assert kept.config["reg"]["weight"] == 0.5
    assert kept.config["dataset"]["name"] == "synthetic"
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt")["wandb_id"] == run.run_id


def test_accuracies_after_training_are_in_the_summary(offline):
    folder, kept = offline
    results = RunFolder(folder).results()
    assert kept.summary["last/test/acc/pgd20"] == results["last"]["test"]["pgd20"]
    assert kept.summary["best/val/acc/clean"] == results["best"]["val"]["clean"]
    assert "last/test/acc/n" not in kept.summary
    assert kept.summary["status"] == str(FinishedRun(RunFolder(folder)).status)


def test_checkpoints_are_an_artifact(offline):
    folder, kept = offline
    (artifact,) = kept.of("artifact")
    assert artifact.type == "model"
    sizes = {entry.path: entry.size for entry in artifact.manifest.contents}
    assert sizes == {name: path.stat().st_size for name, path in RunFolder(folder).saved().items()}


def test_a_run_is_found_by_its_method_attack_eps_data_set_and_seed(offline):
    folder, kept = offline
    cfg = RunFolder(folder).config()
    assert kept.run.display_name == f"FGSM-AT + DER w=0.5 s={cfg.seed}"
    tags = {"FGSM-AT + DER", "FGSM", f"eps={cfg.threat.eps}", "synthetic", f"seed={cfg.seed}"}
    assert set(kept.run.tags) == {"a", "b"} | tags
    assert {name: kept.summary[name] for name in ALARMS.values()} == dict.fromkeys(
        ALARMS.values(), 0.0
    )


def test_that_it_runs_offline_is_said_when_it_begins(tmp_path, no_key, capsys):
    logger = loggers.wandb_logger(tmp_path, project="p")
    assert capsys.readouterr().err == ""  # what is refused until then leaves no run
    assert logger.experiment.id
    assert capsys.readouterr().err.count("W&B runs offline: no API key is configured") == 1
    logger.finish()


@pytest.mark.slow
def test_a_resumed_run_resumes_at_wandb(offline, no_key, monkeypatch, capsys):
    folder, kept = offline
    more = ("trainer.max_epochs=3", "trainer.accelerator=cpu")
    (known,) = folder.glob("wandb/offline-run-*")
    code, _, err = typed(monkeypatch, capsys, train.main, f"resume={folder}", *more)
    assert code == 0, err
    assert err.count("W&B runs offline: no API key is configured") == 1
    (new,) = set(folder.glob("wandb/offline-run-*")) - {known}
    assert new.name.rpartition("-")[2] == kept.run.run_id


def test_jobs_of_a_sweep_are_a_group():
    register_resolvers()
    try:
        for mode, group in {"RUN": None, "MULTIRUN": "beta"}.items():
            asked = ["hydra.sweep.dir=a/beta", f"hydra.mode={mode}"]
            with initialize_config_dir(str(CONF), version_base="1.3"):
                cfg = compose("train", asked, return_hydra_config=True)
            HydraConfig.instance().set_config(cfg)
            assert cfg.logger.wandb.group == group
    finally:
        HydraConfig.instance().cfg = None
    assert cfg.logger.wandb.group is None


# The panels


def test_no_panel_names_a_key_that_is_never_logged(offline, alarmed):
    _, kept = offline
    curves, scatters = set(), set()
    for section in specification():
        for panel in section["panels"]:
            if panel["kind"] == Panel.__name__.lower():
                curves |= {line["key"] for line in panel["lines"]}
                curves |= {line["minus"] for line in panel["lines"] if line["minus"]}
            elif panel["kind"] == Scatter.__name__.lower():
                scatters |= {(panel["x"], panel["y"])}
    assert len(curves) > 15
    assert curves <= kept.history | alarmed.history
    assert set(ALARMS.values()) <= alarmed.history
    for x, y in scatters:
        assert find_column(kept.summary, y) in kept.summary
        group, key = x.split(".")
        assert key in kept.config[group]


# A W&B that fails


def csv_rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def one_epoch(folder):
    return fitted(folder, *LOGGED, "trainer.max_epochs=1")


def wandb_of(run):
    (logger,) = [found for found in run.trainer.loggers if hasattr(found, "tolerate")]
    return logger


def test_a_wandb_that_cannot_begin_leaves_the_training_alone(tmp_path, no_key, monkeypatch, capsys):
    def broken(**_):
        raise wandb.errors.CommError("no way")

    monkeypatch.setattr(wandb, "init", broken)
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = one_epoch(tmp_path / "run")
    wandb_of(run).log_summary({"last/test/acc/pgd20": 0.5})
    wandb_of(run).log_artifact({})
    wandb_of(run).finish()
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "W&B has failed and is disabled: CommError: no way" in err
    assert isinstance(wandb_of(run).experiment, DummyExperiment)
    assert "wandb_id" not in read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert len(csv_rows(tmp_path / "run")) == 15


def test_a_server_that_refuses_makes_the_run_offline(tmp_path, no_key, monkeypatch, capsys):
    begin = wandb.init

    def refuse(**options):
        if options["mode"] == "online":
            raise wandb.errors.AuthenticationError("the key is wrong")
        return begin(**options)

    monkeypatch.setattr(wandb, "init", refuse)
    monkeypatch.setattr(loggers, "is_reachable", lambda _: True)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "online")
    run = one_epoch(tmp_path / "run")
    wandb_of(run).finish()
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "W&B runs offline: AuthenticationError: the key is wrong; 'wandb sync " in err
    assert "val/acc/pgd2" in Kept(tmp_path / "run").history


def test_a_failure_in_the_middle_leaves_the_training_alone(tmp_path, no_key, monkeypatch, capsys):
    calls, sent = [], wandb.Run.log

    def failing(self, *args, **kwargs):
        calls.append(args)
        if len(calls) > 5:
            raise BrokenPipeError("gone")
        return sent(self, *args, **kwargs)

    monkeypatch.setattr(wandb.Run, "log", failing)
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = one_epoch(tmp_path / "run")
    wandb_of(run).finish()
    err = capsys.readouterr().err
    assert err == "W&B has failed and is disabled from here on: BrokenPipeError: gone\n"
    assert len(calls) == 6
    checkpoint = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert checkpoint["wandb_id"] == Kept(tmp_path / "run").run.run_id
    found = csv_rows(tmp_path / "run")
    assert [int(row["step"]) for row in found if row["train/loss"]] == list(range(1, 15))
    assert found[-1]["val/acc/pgd2"]


KILLED = """
import os, signal, subprocess, sys, time
from energy_at.training.loggers import TolerantWandb

logger = TolerantWandb(mode="offline", project="mine", save_dir=sys.argv[1])
logger.log_metrics({"train/loss": 1.0}, 0)
children = ""
while not children:  # its process may not have its name yet
    found = ["pgrep", "-P", str(os.getpid()), "wandb"]
    children = subprocess.run(found, stdout=subprocess.PIPE, text=True).stdout
os.kill(int(children), signal.SIGKILL)
for step in range(1, 20):
    time.sleep(0.05)
    logger.log_metrics({"train/loss": 1.0}, step)
logger.finish()
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pgrep") is None, reason="finds the process of W&B")
def test_a_process_of_wandb_that_is_killed_is_one_line(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()  # no traceback at the exit
    assert line.startswith("W&B has failed and is disabled from here on: ")


def test_a_server_that_hangs_is_not_waited_for(tmp_path, no_key, monkeypatch, capsys):
    monkeypatch.setattr(wandb_workspace, "PATIENCE", 0.3)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", url)
        start = time.monotonic()
        assert not wandb_workspace.is_reachable(url)
        assert time.monotonic() - start < 2
        run = one_epoch(tmp_path / "run")
        wandb_of(run).finish()
    (folder,) = (tmp_path / "run").glob("wandb/offline-run-*")
    command = capsys.readouterr().err.partition(f"W&B runs offline: {url} does not answer; ")[2]
    assert command.startswith("'wandb sync ")
    assert command.endswith("wandb/offline-run-*' uploads it later\n")
    pattern = command.split("'")[1].split()[-1]
    assert list(Path().glob(pattern)) == [Path(os.path.relpath(folder))]
    assert len(csv_rows(tmp_path / "run")) == 15
    assert "val/acc/pgd2" in Kept(tmp_path / "run").history


# A W&B server that takes what a run sends, and one that dies in the middle of it


slow = pytest.mark.slow  # wandb itself waits for seconds at the beginning and the end
RUN = (*TINY, "logger=csv_wandb", "trainer.max_epochs=2")
KEY = "0" * 40


def sent(server):
    """Rows by step, without what wandb adds."""
    own = ("_timestamp", "_runtime", "_step", "perf/images_per_s")
    return [{k: v for k, v in row.items() if k not in own} for row in server.history]


def fit(folder, after_begin=lambda: None):
    wandb.teardown()  # else it continues with the address of an earlier run
    run = prepared(folder, *RUN)
    logger = wandb_of(run)
    _ = logger.experiment
    after_begin()
    run.trainer.fit(run.module, run.data)
    logger.finish()


def sync(folder, server):
    (offline,) = folder.glob("wandb/offline-run-*")
    command = [str(Path(sys.executable).with_name("wandb")), "sync", str(offline)]
    address = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
    subprocess.run(
        command,
        env=os.environ | address,
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=120,
    )


@slow
def test_a_run_that_is_synced_later_gives_what_one_online_gives(tmp_path, monkeypatch):
    without_key(monkeypatch, tmp_path / "home")
    fit(tmp_path / "offline")
    kept = Kept(tmp_path / "offline")
    with serving() as server:
        sync(tmp_path / "offline", server)
        synced, summary = sent(server), server.summary
    with serving() as server, monkeypatch.context() as online:
        online.setenv("WANDB_API_KEY", KEY)
        online.setenv("WANDB_BASE_URL", server.url)
        fit(tmp_path / "online")
        assert sent(server) == synced
        assert server.summary.keys() == summary.keys()
    assert len(synced) == len(kept.rows) == 30
    for row, other in zip(synced, kept.rows, strict=True):
        assert row.items() <= other.items()


@slow
def test_a_server_that_dies_in_the_middle_is_not_waited_for(tmp_path, monkeypatch, capsys):
    without_key(monkeypatch, tmp_path / "home")
    monkeypatch.setattr(loggers, "FINISH", 3.0)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        die = server.shutdown, server.server_close
        start = time.monotonic()
        fit(tmp_path / "run", lambda: [end() for end in die])
    assert time.monotonic() - start < 60
    assert len(csv_rows(tmp_path / "run")) == 30
    assert "W&B has failed" not in capsys.readouterr().err  # what it could not send lies on disk
    (folder,) = (tmp_path / "run" / "wandb").glob("run-*")
    assert list(folder.glob("*.wandb"))
