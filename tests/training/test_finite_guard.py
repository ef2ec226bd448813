"""What must not reach a network: pixels out of range, in any batch."""

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader, TensorDataset

from energy_at.attacks.threat import Linf
from energy_at.training import FastAT, FiniteGuard
from tests.helpers.nets import TinyNet


@pytest.mark.parametrize(
    ("broken", "cure"),
    [(lambda x: 255 * x, "divide bytes by 255"), (lambda x: x - 1, "first layer")],
)
def test_pixels_of_a_later_batch_are_seen_too(tmp_path, broken, cure):
    x, y = torch.rand(64, 3, 8, 8), torch.arange(64) % 4
    x[40:] = broken(x[40:])
    loader = DataLoader(TensorDataset(x, y), 16)
    trainer = Trainer(
        max_epochs=1, default_root_dir=tmp_path, accelerator="cpu", logger=False,
        inference_mode=False, enable_checkpointing=False, enable_progress_bar=False,
        callbacks=[FiniteGuard()],
    )  # fmt: skip
    with pytest.raises(ValueError, match=rf"training images must lie in \[0, 1\].*{cure}"):
        trainer.fit(FastAT(TinyNet(), Linf(8 / 255)), loader)
