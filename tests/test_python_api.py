"""The framework without its command line: any network, any loader."""

import csv
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from energy_at.attacks.threat import Linf
from energy_at.objectives import DER, Weighted
from energy_at.training import EnergyMonitor, FastAT, StandardAT, Trades
from tests.helpers.nets import TinyNet


def loader():
    images, labels = torch.rand(24, 3, 8, 8), torch.arange(24) % 4
    return DataLoader(TensorDataset(images, labels), batch_size=8)


@pytest.mark.parametrize("method", [StandardAT, FastAT, Trades])
def test_any_classifier_and_loader_can_be_trained(tmp_path, method):
    module = method(TinyNet(), Linf(8 / 255), {"der": Weighted(DER("all"), 1.0)})
    before = [p.clone() for p in module.parameters()]
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        inference_mode=False,
        callbacks=[EnergyMonitor()],
        logger=CSVLogger(tmp_path),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
    )
    trainer.fit(module, loader(), loader())
    assert all(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    (path,) = Path(tmp_path).rglob("metrics.csv")
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/delta_energy/marginal"]]
    assert len(rows) == 6


def test_validation_in_inference_mode_says_what_to_do():
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    with pytest.raises(RuntimeError, match="inference_mode=False"):
        trainer.validate(FastAT(TinyNet(), Linf(8 / 255)), loader(), verbose=False)


def test_images_of_a_loader_that_normalizes_are_refused(tmp_path):
    images, labels = torch.randn(16, 3, 8, 8), torch.arange(16) % 4
    data = DataLoader(TensorDataset(images, labels), batch_size=8)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"training images must lie in \[0, 1\]"):
        trainer.fit(FastAT(TinyNet(), Linf(8 / 255)), data)
