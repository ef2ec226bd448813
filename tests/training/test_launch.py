"""What stops a training before it starts, on several processes."""

import os
import signal
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, Timer

from energy_at import train
from energy_at.core.ranges import require_ranges
from energy_at.core.rules import ArgumentError
from energy_at.training import launch
from energy_at.training.launch import _ending_with_others, _naming_callback, _worker_command, fit
from tests.helpers.running import ONE_EPOCH, TINY, prepared, typed


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (
            "trainer.devices=0",
            "trainer.devices=0 must be a number of processes from 1 to 65536, or auto",
        ),
        ("trainer.strategy=fsdp", "trainer.strategy=fsdp must be auto or ddp"),
        ("dataset.batch_size=447", "leaves 1 of 448 images to the last batch, fewer than the 2"),
        ("dataset.eval_batch_size=63", "leaves 1 of 64 images to the last batch, fewer than the 2"),
        ("trainer.num_nodes=2", "trainer.num_nodes=2 needs a process on every node"),
        ("attack=fgsm_pgi", "trainer.devices=2 must be 1: FGSMPGI needs all images of a batch in"),
        ("attack=nuat", "trainer.devices=2 must be 1: NuAT needs all images of a batch in one pro"),
        ("seed=1", "only python -m energy_at.train and hydra/launcher=basic can"),
    ],
)
def test_what_several_processes_cannot_do_gets_one_line_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, mistake, said
):
    monkeypatch.chdir(tmp_path)
    code, _, err = typed(monkeypatch, capsys, train.main, *ONE_EPOCH, "trainer.devices=2", mistake)
    assert code == 1
    assert said in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("port", ["taken", "abc", "70000"])
def test_a_port_that_cannot_be_had_gets_one_line(tmp_path, monkeypatch, capsys, port):
    monkeypatch.chdir(tmp_path)
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = str(other.getsockname()[1]) if port == "taken" else port
        monkeypatch.setenv("MASTER_PORT", port)
        code, _, err = typed(monkeypatch, capsys, train.main, *ONE_EPOCH, "trainer.devices=2")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith(f"error: MASTER_PORT={port} ")
    assert list(tmp_path.iterdir()) == []


def test_workers_trust_what_their_parent_does(monkeypatch):
    """A run that is resumed has only its changes for a command, and they never say it."""
    monkeypatch.delenv("ENERGY_AT_TRUST", raising=False)
    monkeypatch.setattr("energy_at.core.trust._trusted", ["mine"])
    monkeypatch.setattr(sys, "argv", ["train"])
    with _worker_command(Mock(spec=Trainer, world_size=2), ["resume=run"]):
        assert sys.argv == ["train", "resume=run"]
        assert os.environ["ENERGY_AT_TRUST"] == "mine"
    assert "ENERGY_AT_TRUST" not in os.environ


@pytest.fixture
def together(monkeypatch):
    """A trainer with two processes that wait, and the codes with which this one has ended."""
    waiting = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    procs = list(waiting)
    strategy = SimpleNamespace(launcher=SimpleNamespace(procs=procs))
    trainer, over, codes = (
        Mock(spec=Trainer, world_size=3, strategy=strategy),
        threading.Event(),
        [],
    )

    def end(code):
        codes.append(code)
        over.set()

    monkeypatch.setattr(launch, "_POLL", 0.05)
    monkeypatch.setattr(os, "_exit", end)
    yield trainer, over, codes, waiting
    for process in waiting:
        process.kill()
        process.wait()


def watch(trainer, over):
    threading.Timer(1, over.set).start()
    launch._watch(trainer, over, "one has ended")


def test_a_killed_process_ends_the_others_with_one_line(together, capsys):
    trainer, over, codes, (first, second) = together
    first.kill()
    watch(trainer, over)
    assert (codes, capsys.readouterr().err) == ([1], "error: one has ended\n")
    assert second.wait(timeout=5) == -signal.SIGKILL
    assert trainer.strategy.launcher.procs == [second]  # for Lightning, nobody was killed


def test_a_process_that_has_said_why_it_ends_ends_no_other(together, capsys):
    trainer, over, codes, (_, second) = together
    trainer.strategy.launcher.procs.append(subprocess.Popen(["false"]))
    watch(trainer, over)
    assert (codes, capsys.readouterr().err, second.poll()) == ([], "", None)


@pytest.mark.parametrize(
    ("rank", "parent", "codes", "said"),
    [
        ("1", "1000000000", [1], "error: one has ended\n"),
        ("2", "1000000000", [1], ""),
        ("1", "its own", [], ""),
        ("1", None, [], ""),  # of torchrun
        ("0", "1000000000", [], ""),
    ],
)
def test_a_process_ends_with_the_one_that_started_it(
    together, monkeypatch, capsys, rank, parent, codes, said
):
    trainer, over, found, _ = together
    monkeypatch.setenv("LOCAL_RANK", rank)
    if parent is not None:
        own = parent == "its own"
        monkeypatch.setenv("ENERGY_AT_PARENT", str(os.getppid()) if own else parent)
    watch(trainer, over)
    assert (found, capsys.readouterr().err) == (codes, said)


def test_a_job_that_fails_leaves_no_process_to_the_next_one(together, capsys):
    """Lightning would kill the next job of a sweep, for it looks after them until they end."""
    trainer, _, codes, waiting = together
    with pytest.raises(ValueError, match="nan"), _ending_with_others(trainer, "one has ended"):
        raise ValueError("nan")
    assert [process.wait(timeout=5) for process in waiting] == [-signal.SIGKILL] * 2
    assert trainer.strategy.launcher.procs == []
    assert (codes, capsys.readouterr().err) == ([], "")


def test_processes_that_have_trained_to_the_end_end_by_themselves(together):
    trainer, _, _, waiting = together
    with _ending_with_others(trainer, "one has ended"):
        pass
    assert [process.poll() for process in waiting] == [None, None]


def test_only_the_process_that_starts_the_others_is_their_parent(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train"])
    for rank, parent in (("0", str(os.getpid())), ("1", "42")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        monkeypatch.setenv("ENERGY_AT_PARENT", "42")
        with _worker_command(Mock(spec=Trainer, world_size=2), []):
            assert os.environ["ENERGY_AT_PARENT"] == parent
        assert os.environ["ENERGY_AT_PARENT"] == "42"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("BackboneFinetuning", "AttributeError: .* no attribute 'backbone'.*"),
        ("BaseFinetuning", "NotImplementedError"),
        ("LearningRateFinder", "AttributeError: When using the learning rate finder.*"),
    ],
)
def test_a_callback_of_lightning_that_does_not_fit_is_named(tmp_path, name, why):
    callback = f"+callbacks.x={{_target_: lightning.pytorch.callbacks.{name}}}"
    run = prepared(tmp_path, *TINY, callback)
    said = rf"^callbacks: {name} fails in this training \({why}\): leave it out$"
    with pytest.raises(ValueError, match=said):
        fit(run.trainer, run.module, run.data, tmp_path, None, [])


def test_no_callback_of_lightning_is_blamed_for_the_failure_of_another():
    def own(self):
        raise KeyError("mine")

    def on_a_full_disk(self):
        raise OSError("No space left")

    def ours(self):
        require_ranges("training.EMA", decay=2)

    mine = type("Mine", (Callback,), {})()
    cases = [(own, mine, KeyError), (on_a_full_disk, Timer(), OSError)]
    for hook, callback, error in [*cases, (ours, Timer(), ArgumentError)]:
        with pytest.raises(error), _naming_callback():
            hook(callback)
