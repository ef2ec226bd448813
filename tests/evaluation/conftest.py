"""A trained run in the working directory, and commands that evaluate it."""

import shutil
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from energy_at import evaluate
from tests.helpers.digits_net import digits_net
from tests.helpers.running import CONF, train_in, typed

TRAINING = (
    "dataset=digits",
    "model=small",
    "model.width=8",
    "threat.eps=0.1",
    "logger=none",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "validation.attacks.pgd.steps=1",
    "evaluation.subset=1",
    "callbacks.progress=null",
    "callbacks.best=null",
)


@pytest.fixture(scope="session")
def trained_digits(tmp_path_factory):
    """The folder of a run whose last network is a trained one."""
    folder = train_in(tmp_path_factory.mktemp("trained") / "run", *TRAINING)
    path = folder / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    for key, value in digits_net()[0].state_dict().items():
        checkpoint["state_dict"][f"net.{key}"] = value
    torch.save(checkpoint, path)
    return folder


@pytest.fixture
def run(trained_digits, tmp_path, monkeypatch):
    """A copy of it, in the working directory."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained_digits, "run"))


@pytest.fixture
def type_evaluate(monkeypatch, capsys):
    return lambda *argv: typed(monkeypatch, capsys, evaluate.main, *argv)


@pytest.fixture
def subject(run):
    from energy_at.evaluation import trained_model  # after the hook that checks types

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return trained_model.open_model(compose("evaluate", ["run=run", "device=cpu"]))


@pytest.fixture
def mistakes(run):
    """Files and folders to name by mistake."""
    for name, text in (("empty", None), ("no_yaml", "{a: ["), ("other", "a: 1\n")):
        Path(name).mkdir()
        if text is not None:
            Path(name, "config.yaml").write_text(text)
    Path("file").write_text("text")
    whole = Path("run/checkpoints/last.ckpt").read_bytes()
    Path("cut.ckpt").write_bytes(whole[: len(whole) // 2])
    for name in ("0", "10", "2"):
        shutil.copytree("run", Path("sweep", name))
    Path("taken").mkdir()
    Path("taken/journal.jsonl").write_text("of somebody else\n")
