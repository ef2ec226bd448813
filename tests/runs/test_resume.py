"""A resumed run equals the run that was never stopped, bit for bit (on the CPU)."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from lightning import Callback

from energy_at import train
from energy_at.runs.checkpoints import read_checkpoint
from energy_at.runs.folder import RunFolder
from tests.helpers.running import TINY_BN, fitted, prepared, states_equal
from tests.helpers.running import typed as in_process

RUN = (*TINY_BN, "reg=der", "attack=rs_fgsm", "trainer.max_epochs=3", "dataset.batch_size=64")
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
    return fitted(folder, *RUN, *EVERY_STEP), folder


@pytest.mark.parametrize(
    "step", [7, 8, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 13, 14, 20))]
)
def test_a_run_resumed_after_any_step_equals_the_whole_run(tmp_path, whole, step):
    reference, reference_folder = whole
    broken = prepared(tmp_path, *RUN, *EVERY_STEP)
    assert reference.trainer.num_training_batches == 7
    broken.trainer.callbacks.insert(0, Unplugged(step))
    with pytest.raises(KeyError):
        broken.trainer.fit(broken.module, broken.data)
    again = fitted(tmp_path, *RUN, *EVERY_STEP, checkpoint=RunFolder(tmp_path).checkpoint())
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
