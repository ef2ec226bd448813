"""A W&B server that takes what a run sends, and one that dies in the middle of it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb

from energy_at.training import loggers
from tests.helpers.running import TINY, prepared
from tests.helpers.wandb_files import Kept, without_key
from tests.helpers.wandb_server import serving
from tests.training.test_loggers_wandb import rows

pytestmark = pytest.mark.slow  # wandb itself waits for seconds at the beginning and the end

RUN = (*TINY, "logger=csv_wandb", "trainer.max_epochs=2")
KEY = "0" * 40


def sent(server):
    """Rows by step, without what wandb adds."""
    own = ("_timestamp", "_runtime", "_step", "perf/images_per_s")
    return [{k: v for k, v in row.items() if k not in own} for row in server.history]


def fit(folder, after_begin=lambda: None):
    wandb.teardown()  # else it continues with the address of an earlier run
    run = prepared(folder, *RUN)
    (logger,) = loggers.wandb_loggers(run.trainer.loggers)
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
    assert len(rows(tmp_path / "run")) == 30
    assert "W&B has failed" not in capsys.readouterr().err  # what it could not send lies on disk
    (folder,) = (tmp_path / "run" / "wandb").glob("run-*")
    assert list(folder.glob("*.wandb"))
