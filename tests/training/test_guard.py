"""A training stops at what is not a number; the guard comes with the module."""

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader, TensorDataset

from energy_at.attacks import Linf
from energy_at.training import FastAT, FiniteGuard
from tests.helpers.nets import TinyNet


def fit(folder, net, x, *callbacks, **options):
    """One epoch of 4 steps with the Python API; returns the trainer."""
    trainer = Trainer(
        max_epochs=1, default_root_dir=folder, accelerator="cpu", logger=False,
        inference_mode=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[*callbacks], **options,
    )  # fmt: skip
    trainer.fit(FastAT(net, Linf(8 / 255)), DataLoader(TensorDataset(x, torch.arange(64) % 4), 16))
    return trainer


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        (lambda x: 255 * x, "divide bytes by 255"),
        (lambda x: x - 1, "normalization is the network's first layer"),
        (lambda x: x * torch.nan, "a pixel is not a finite number"),
        (lambda x: x / 0, "a pixel is not a finite number"),
    ],
)
def test_pixels_of_a_later_batch_are_checked_too(tmp_path, change, cure):
    x = torch.rand(64, 3, 8, 8)
    x[40:] = change(x[40:])
    with pytest.raises(ValueError, match=rf"must lie in \[0, 1\], got .* at step 3: {cure}"):
        fit(tmp_path, TinyNet(), x)


def test_a_pixel_that_is_no_number_stops_the_step_that_meets_it(tmp_path):
    """On a CPU, where reading it waits for nothing: no later step is trained."""
    x, net, steps = torch.rand(64, 3, 8, 8), TinyNet(), []
    x[20] = torch.nan
    next(net.parameters()).register_post_accumulate_grad_hook(lambda _: steps.append(1))
    with pytest.raises(ValueError, match="a pixel is not a finite number"):
        fit(tmp_path, net, x)
    assert len(steps) == 2


def test_on_an_accelerator_values_are_read_together():
    guard, read = FiniteGuard(every=3), []
    trainer, module = Trainer(accelerator="cpu", logger=False), FastAT(TinyNet(), Linf(8 / 255))
    guard.flush = lambda _: read.append(len(guard._losses))
    for _ in range(3):
        guard.on_train_batch_end(trainer, module, {"loss": torch.zeros((), device="meta")})
    assert read == [3]


class Overflow(TinyNet):
    def forward(self, x):
        return super().forward(x) * (1e30 if self.training else 1)


def test_weights_that_are_not_numbers_stop_the_training(tmp_path):
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) at step [12]: training"):
        fit(tmp_path, Overflow(), torch.rand(64, 3, 8, 8))
    net, broken = TinyNet(), torch.nn.Parameter(torch.tensor(torch.nan))
    net.register_parameter("unused", broken)
    with pytest.raises(FloatingPointError, match="a weight is not finite at step 4"):
        fit(tmp_path, net, torch.rand(64, 3, 8, 8))


def test_a_guard_of_the_trainer_is_the_only_one(tmp_path):
    for own in ((), (FiniteGuard(every=7),)):
        trainer = fit(tmp_path, TinyNet(), torch.rand(64, 3, 8, 8), *own)
        found = [one.every for one in trainer.callbacks if isinstance(one, FiniteGuard)]
        assert found == [7 if own else 50]
