"""Composes the real configuration and runs it in this process."""

import logging
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import seed_everything

from energy_at import train
from energy_at.config.build import Run, build
from energy_at.core.files import CONF as FOLDER
from energy_at.doctor.__main__ import OWN
from energy_at.runs.folder import RunFolder

CONF = Path(FOLDER)
SHORT_ATTACKS = ("validation.attacks.pgd.steps=2", "evaluation.attacks.pgd.steps=2")
TINY_BN = ("dataset=synthetic", "model.width=2", "logger=csv", "callbacks.progress=null",
           *SHORT_ATTACKS)  # fmt: skip
TINY = (*TINY_BN, "model=small", "model.width=4")
QUIET = ("trainer.enable_progress_bar=false", "trainer.accelerator=cpu")
ONE_EPOCH = (*TINY, "trainer.max_epochs=1", *QUIET)

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


def choices(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def named_datasets():
    """Those that describe themselves; the user's own are described by their images."""
    return [name for name in choices("dataset") if name not in OWN]


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [*overrides, *QUIET])


def prepared(folder, *overrides) -> Run:
    """A run that is built and seeded, not yet fitted."""
    cfg = config(*overrides)
    seed_everything(cfg.seed, workers=True, verbose=False)
    return build(cfg, RunFolder(folder))


def fitted(folder, *overrides, checkpoint=None) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    run = prepared(folder, *overrides)
    run.trainer.fit(run.module, run.data, ckpt_path=checkpoint, weights_only=True)
    return run


def train_in(folder, *overrides):
    """Types a training into ``folder``, which must go well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *overrides, f"hydra.run.dir={folder}"])
        train.main()
    return folder


def everything(folder="."):
    """Every file below a folder, with its content."""
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def states_equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def typed(monkeypatch, capsys, main, *argv):
    """Types a command; returns exit code, standard output and standard error."""
    monkeypatch.setattr(sys, "argv", [main.__module__, *argv])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


def assert_refused(type_in, said, *argv):
    """What is typed ends in one line that says why, and changes no file and no folder."""
    before = everything(), sorted(Path().rglob("*"))
    code, out, err = type_in(*argv)
    assert code == 1
    assert said in err, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert "while resolving" not in err  # what Hydra says of an error, around it
    assert (everything(), sorted(Path().rglob("*"))) == before
