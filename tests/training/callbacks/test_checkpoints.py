"""The best checkpoint, the last one, and what a checkpoint keeps of the log."""

import shutil
from unittest.mock import MagicMock

import pytest
import torch
from lightning import LightningModule, Trainer

from energy_at.evaluation import final_results
from energy_at.reporting import comparison
from energy_at.runs.checkpoints import read_checkpoint
from energy_at.runs.folder import RunFolder
from energy_at.training import BestCheckpoint, CheckpointFiles, Continuation, LastCheckpoint
from energy_at.training.loggers import MetricsCSV
from tests.helpers.running import ONE_EPOCH, QUIET, TINY, assert_refused

MODULE = MagicMock(spec=LightningModule)


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    """They take longer than everything else, and are looked at in tests of their own."""
    for module in (final_results, comparison):
        monkeypatch.setattr(module, "save", lambda *_: [])


def best(path):
    return read_checkpoint(RunFolder(path).checkpoint("best"))


@pytest.mark.slow
def test_a_run_that_was_moved_keeps_its_best_score(type_train, here):
    options = (*TINY, *QUIET, "dataset.subset=200", "schedule=constant", "optimizer.lr=0.15")
    type_train(*options, "trainer.max_epochs=6", "hydra.run.dir=whole")
    type_train(*options, "trainer.max_epochs=5", "hydra.run.dir=here")
    shutil.move("here", "there")
    code, _, _ = type_train("resume=there", "trainer.max_epochs=6")
    assert code == 0
    assert best(here / "there")["global_step"] == best(here / "whole")["global_step"]


@pytest.mark.parametrize(
    ("kind", "own"), [(BestCheckpoint, "best.ckpt"), (LastCheckpoint, "last.ckpt")]
)
def test_a_resumed_checkpoint_names_no_file_but_its_own(kind, own, tmp_path):
    """A stranger's would have Lightning remove any file, as one that a better one replaces."""
    options = {"monitor": "val/acc/pgd10"} if kind is BestCheckpoint else {}
    callback, place = kind(tmp_path / "checkpoints", **options), f"X{'/..' * 20}{tmp_path}/thesis"
    state = callback.state_dict() | {"dirpath": "X", "best_model_score": torch.tensor(0.5)}
    state |= dict.fromkeys(("best_model_path", "kth_best_model_path", "last_model_path"), place)
    callback.load_state_dict(state | {"best_k_models": {place: torch.tensor(0.5)}})
    file = str(tmp_path / "checkpoints" / own)
    assert callback.best_k_models == {file: torch.tensor(0.5)}
    named = (callback.best_model_path, callback.kth_best_model_path, callback.last_model_path)
    assert set(named) == {file}
    callback.load_state_dict(kind(tmp_path, **options).state_dict())  # of a run without any
    assert (callback.best_k_models, callback.best_model_path) == ({}, "")


@pytest.mark.parametrize("name", ["checkpoints/../thesis.ckpt", "thesis.txt", "s3://bucket/a.ckpt"])
def test_what_is_no_checkpoint_of_its_folder_is_not_removed(name, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for file in ("thesis.ckpt", "thesis.txt", "checkpoints/epoch=1.ckpt"):
        (tmp_path / file).touch()
    path = name if "://" in name else str(tmp_path / name)
    with pytest.raises(ValueError, match="outside of this run: kept"):
        CheckpointFiles().remove_checkpoint(path)
    CheckpointFiles().remove_checkpoint(tmp_path / "checkpoints" / "epoch=1.ckpt")
    assert {file.name for file in tmp_path.rglob("*.*")} == {"thesis.ckpt", "thesis.txt"}


def test_the_last_checkpoint_is_written_within_an_epoch_but_not_at_its_end(tmp_path):
    """A run that resumed between its last step and its validation would skip the validation."""
    callback, written = LastCheckpoint(tmp_path, every_n_steps=2), []
    for step in range(1, 9):
        trainer = MagicMock(spec=Trainer, is_last_batch=step % 4 == 0, global_step=step)
        callback.on_train_batch_end(trainer)
        written += [(step, *call.args) for call in trainer.save_checkpoint.call_args_list]
    assert written == [(2, tmp_path / "last.ckpt"), (6, tmp_path / "last.ckpt")]


def test_a_number_of_steps_below_one_is_met_by_its_key(type_train, here):
    said = "last.every_n_steps=0 must be an integer >= 1, or null"
    assert_refused(type_train, said, *ONE_EPOCH, "callbacks.last.every_n_steps=0")


def test_rows_that_were_logged_after_a_checkpoint_are_dropped_when_it_is_resumed(tmp_path):
    log, checkpoint = MetricsCSV(tmp_path / "metrics.csv"), {}
    trainer = MagicMock(spec=Trainer, loggers=[log], is_global_zero=True)
    for step in (1, 2):
        log.log_metrics({"train/loss": 1.0}, step=step)
    Continuation().on_save_checkpoint(trainer, MODULE, checkpoint)
    assert checkpoint == {"metrics_rows": 2}  # those that were not yet in the file, too
    kept = log.path.read_bytes()
    log.log_metrics({"train/loss": 3.0}, step=3)
    log.save()
    Continuation().on_load_checkpoint(trainer, MODULE, checkpoint)
    assert log.path.read_bytes() == kept


def test_a_process_that_is_not_the_first_leaves_the_log_alone(tmp_path):
    log = MetricsCSV(tmp_path / "metrics.csv")
    log.log_metrics({"train/loss": 1.0}, step=1)
    log.save()
    trainer = MagicMock(spec=Trainer, loggers=[log], is_global_zero=False)
    Continuation().on_load_checkpoint(trainer, MODULE, {"metrics_rows": 0})
    assert log.count() == 1
