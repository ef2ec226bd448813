"""What W&B keeps of a run, read back from its own offline file; and a W&B that fails."""

import csv
import os
import socket
import time
from pathlib import Path

import pytest
import wandb
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from energy_at import train
from energy_at.config import register_resolvers
from energy_at.overfitting.alarms import ALARMS
from energy_at.reporting import wandb_workspace
from energy_at.reporting.finished_run import FinishedRun
from energy_at.reporting.panels import Panel, Scatter, specification
from energy_at.runs.checkpoints import read_checkpoint
from energy_at.runs.folder import RunFolder
from energy_at.training import loggers
from energy_at.training.loggers import DummyExperiment
from tests.helpers.running import CONF, TINY, fitted, train_in, typed
from tests.helpers.wandb_files import Kept, without_key

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
    validated = [row for row in kept.rows if "val/acc/pgd" in row]
    assert [int(row["trainer/global_step"]) for row in validated] == [14, 28]


def test_wandb_holds_every_number_that_the_csv_holds(offline):
    folder, kept = offline
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    assert len(rows) == len(kept.rows)
    for row, sent in zip(rows, kept.rows, strict=True):
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
    assert summed["val/acc/pgd"].max
    assert summed["train/delta_energy/marginal"].min
    assert summed["train/delta_energy/marginal"].max
    assert summed["train/loss"].min
    pgd = [row["val/acc/pgd"] for row in kept.rows if "val/acc/pgd" in row]
    assert kept.summary["val/acc/pgd.max"] == max(pgd)
    assert kept.summary["val/acc/pgd.last"] == pgd[-1]


def test_wandb_knows_the_run(offline):
    folder, kept = offline
    run = kept.run
    assert (run.project, run.run_group, run.job_type) == ("energy_at", "mine", "train")
    assert (list(run.tags), run.notes) == (["a", "b"], "why")
    assert kept.config["reg"]["weight"] == 0.5
    assert kept.config["dataset"]["name"] == "synthetic"
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt")["wandb_id"] == run.run_id


def test_accuracies_after_training_are_in_the_summary(offline):
    folder, kept = offline
    results = RunFolder(folder).results()
    assert kept.summary["last/test/acc/pgd"] == results["last"]["test"]["pgd"]
    assert kept.summary["best/val/acc/clean"] == results["best"]["val"]["clean"]
    assert "last/test/acc/n" not in kept.summary
    assert kept.summary["status"] == str(FinishedRun(RunFolder(folder)).status)


def test_checkpoints_are_an_artifact(offline):
    folder, kept = offline
    (artifact,) = kept.of("artifact")
    assert artifact.type == "model"
    sizes = {entry.path: entry.size for entry in artifact.manifest.contents}
    assert sizes == {name: path.stat().st_size for name, path in RunFolder(folder).saved().items()}


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
        assert y in kept.summary
        group, key = x.split(".")
        assert key in kept.config[group]


def test_the_workspace_draws_what_the_specification_says():
    model = wandb_workspace.workspace("me", "project", "name")._to_model().model_dump(by_alias=True)
    sections = model["spec"]["section"]["panelBankConfig"]["sections"]
    for drawn, wanted in zip(sections, specification(), strict=False):
        assert drawn["name"] == wanted["title"]
        for panel, described in zip(drawn["panels"], wanted["panels"], strict=True):
            text = str(panel["config"])
            keys = described.get("keys") or [described.get("y") or described.get("key")]
            for line in described.get("lines", []):
                keys = [k for k in (line["key"], line["minus"]) if k]
                assert all(key in text for key in keys)
            assert described.get("lines") or all(str(key) in text for key in keys)
    assert len(specification()) <= len(sections)


# A W&B that fails


def rows(folder):
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
    wandb_of(run).log_summary({"last/test/acc/pgd": 0.5})
    wandb_of(run).log_artifact({})
    wandb_of(run).finish()
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "W&B has failed and is disabled: CommError: no way" in err
    assert isinstance(wandb_of(run).experiment, DummyExperiment)
    assert "wandb_id" not in read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert len(rows(tmp_path / "run")) == 15


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
    assert "val/acc/pgd" in Kept(tmp_path / "run").history


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
    found = rows(tmp_path / "run")
    assert [int(row["step"]) for row in found if row["train/loss"]] == list(range(1, 15))
    assert found[-1]["val/acc/pgd"]


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
    assert len(rows(tmp_path / "run")) == 15
    assert "val/acc/pgd" in Kept(tmp_path / "run").history


def test_a_key_is_found_where_wandb_looks_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    assert not wandb_workspace.has_wandb_key()
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")
    assert wandb_workspace.has_wandb_key()
    (tmp_path / ".netrc").write_text("machine example.org\n  login user\n  password x\n")
    assert not wandb_workspace.has_wandb_key()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert wandb_workspace.has_wandb_key()
