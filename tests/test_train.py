"""What is typed to train, and what comes back."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from matplotlib import get_configdir

from energy_at import evaluate
from tests.helpers.running import ONE_EPOCH, assert_refused, train_in, typed


@pytest.fixture(autouse=True)
def _offline(here, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    with redirect_stdout(io.StringIO()) as out:
        train_in(folder / "finished", *ONE_EPOCH, "reg=der")
    return folder, out.getvalue()


@pytest.fixture
def finished(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    return trained[1]


def test_the_command_of_the_readme_trains_on_embedded_data(tmp_path):
    command = [sys.executable, "-m", "energy_at.train", "model=preactresnet18", "reg=der",
               "attack=fgsm", "trainer.max_epochs=1", "model.width=4", "dataset.subset=400",
               "validation.attacks.pgd.steps=2", "evaluation.attacks.pgd.steps=2",
               "hydra.run.dir=run"]  # fmt: skip
    nobody = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    nobody |= {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    nobody |= {"MPLCONFIGDIR": get_configdir()}  # else it lists all fonts anew
    result = subprocess.run(
        command, cwd=tmp_path, env=nobody, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "W&B runs offline" in result.stderr
    for shown in ("epoch 1/1: dE(x)", ", adv ", "img/s", "held-out clean"):
        assert shown in result.stdout + result.stderr
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "environment.json", "metrics.csv", "checkpoints", "results.json",
            "delta_energy.png", "delta_energy.pdf", "wandb"} <= names  # fmt: skip


def test_a_run_leaves_one_row_for_each_step_with_all_energies(finished):
    with Path("finished/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    steps = [row for row in rows if row["train/loss"]]
    assert [int(row["step"]) for row in steps] == list(range(1, 15))
    logged = {f"train/delta_energy/{k}" for k in ("marginal", "joint", "shift_norm", "shift_p99")}
    logged |= {f"train/energy/{e}_{w}" for e in ("marginal", "joint") for w in ("clean", "adv")}
    logged |= {"train/aae_share", "train/acc/clean", "train/acc/adv", "train/logit_scale",
               "train/loss/adversarial_ce", "train/loss/der", "lr", "epoch"}  # fmt: skip
    assert all(row[name] for row in steps for name in logged)
    (validated,) = [row for row in rows if row["val/acc/pgd2"]]
    assert (validated["step"], validated["epoch"]) == ("14", "0")
    assert validated["val/delta_energy/marginal"]


def test_a_run_knows_its_versions_and_its_configuration(finished):
    environment = json.loads(Path("finished/environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert set(environment) >= {"git_commit", "device", "command", "cpu_count"}
    assert "${" not in Path("finished/config.yaml").read_text()


def test_the_printed_table_holds_the_written_results(finished):
    results = json.loads(Path("finished/results.json").read_text())
    assert results["rows"] == len(Path("finished/metrics.csv").read_text().splitlines()) - 1
    assert f"{100 * results['last']['test']['clean']:.1f}" in finished
    assert results["last"]["test"]["n"] == 128
    assert results["last"]["val"]["n"] == 64


def test_a_run_is_opened_again_and_measures_the_same(finished, monkeypatch, capsys):
    monkeypatch.setattr("energy_at.evaluation.gradient_masking.BLACK_BOX_QUERIES", 20)
    weak = ("attacks=[fgsm,pgd]", "steps=2", "restarts=1", "progress=false")
    code, out, _ = typed(monkeypatch, capsys, evaluate.main, "run=finished", *weak)
    results = json.loads(Path("finished/results.json").read_text())["last"]["test"]
    assert code == 0
    cells = [[cell.strip() for cell in line.split("|")] for line in out.splitlines()]
    shares = {row[1]: row[4] for row in cells if len(row) > 4}
    for label, name in (("clean", "clean"), ("FGSM", "fgsm"), ("PGD-2", "pgd2")):
        assert shares[label] == f"{100 * results[name]:.1f}"


def test_a_finished_run_is_not_overwritten(finished, type_train):
    said = "run with reg=der, not the default: hydra.run.dir=FOLDER starts a new one elsewhere"
    assert_refused(type_train, said, *ONE_EPOCH, "hydra.run.dir=finished")


def test_a_loss_that_is_not_finite_stops_with_its_step(type_train):
    code, _, err = type_train(
        *ONE_EPOCH, "optimizer.lr=1000", "optimizer.weight_decay=1000", "hydra.run.dir=broken"
    )
    assert code == 1
    assert "the loss is nan at step" in err.splitlines()[-1]
    assert "training stopped, no checkpoint had been written; lower" in err
    assert not list(Path("broken").rglob("*.ckpt"))


def test_a_late_nan_keeps_the_last_good_checkpoint(type_train):
    good = type_train(*ONE_EPOCH, "hydra.run.dir=run", "trainer.max_epochs=2")
    assert good[0] == 0
    before = Path("run/checkpoints/last.ckpt").read_bytes()
    checkpoint = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    for group in checkpoint["optimizer_states"][0]["state"].values():
        group["momentum_buffer"].fill_(float("inf"))
    torch.save(checkpoint, "run/checkpoints/last.ckpt")
    poisoned = Path("run/checkpoints/last.ckpt").read_bytes()
    code, _, err = type_train("resume=run", "trainer.max_epochs=4")
    assert code == 1
    assert "training stopped, checkpoints written before are kept" in err
    assert Path("run/checkpoints/last.ckpt").read_bytes() == poisoned != before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("dataset.val_size=1", "cannot hold out 1 of 512 images"),
        ("dataset.subset=1000", "dataset.subset=1000 must be at most 448: 512 training images"),
        (("dataset=cifar10", "dataset.download=false"), "dataset.root=data must be a folder of"),
        (("dataset=tiny_imagenet",), "dataset.root=data must be a folder of Tiny-ImageNet (not f"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_had_gets_one_line_and_leaves_nothing(type_train, wrong, said):
    assert_refused(type_train, said, *ONE_EPOCH, *([wrong] if isinstance(wrong, str) else wrong))
