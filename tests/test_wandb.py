"""What W&B keeps of a run, read back from its own offline file."""

import struct
from pathlib import Path

import pytest
from wandb.proto import wandb_internal_pb2

from energy_at import train
from energy_at.training import loggers
from tests.running import TINY, typed

BLOCK = 32768


def records(path):
    """W&B's file is a LevelDB log: fragments (crc, length, kind) that end at each 32 KiB block."""
    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or last
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def history(record):
    return {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}


@pytest.fixture
def offline(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NETRC", raising=False)
    fast = ("trainer.max_epochs=2", "trainer.accelerator=cpu", "hydra.run.dir=run")
    code, _, err = typed(monkeypatch, capsys, train.main, *TINY, "logger=csv_wandb", *fast)
    assert code == 0, err
    (path,) = Path("run/wandb").glob("offline-run-*/run-*.wandb")
    return list(records(path)), err


def test_every_step_reaches_wandb_with_its_step(offline):
    found, err = offline
    assert err.count("W&B runs offline: no API key is configured") == 1
    rows = [history(record) for record in found if record.WhichOneof("record_type") == "history"]
    steps = [row for row in rows if "train/delta_energy/marginal" in row]
    assert [int(float(r["trainer/global_step"])) for r in steps] == list(range(1, 29))
    assert all({"train/aae_share", "train/delta_energy/joint", "lr"} <= r.keys() for r in steps)
    validated = [row for row in rows if "val/acc/pgd" in row]
    assert [int(float(r["trainer/global_step"])) for r in validated] == [14, 28]


def test_the_step_is_the_axis_of_every_metric(offline):
    found, _ = offline
    metrics = [r.metric for r in found if r.WhichOneof("record_type") == "metric"]
    axes = {m.glob_name: m.step_metric for m in metrics if m.step_metric}
    assert axes.get("*") == "trainer/global_step"


def test_a_key_is_found_where_wandb_looks_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    assert not loggers.has_wandb_key()
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")
    assert loggers.has_wandb_key()
    (tmp_path / ".netrc").write_text("machine example.org\n  login user\n  password x\n")
    assert not loggers.has_wandb_key()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert loggers.has_wandb_key()
