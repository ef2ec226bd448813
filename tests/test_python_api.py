"""The framework without its command line: any network, any loader."""

import csv
import os
import subprocess
import sys
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


WRONG = """
import torch
from energy_at.attacks import Linf, fgsm, pgd
from energy_at.energy import LogitPair, joint_energy, marginal_energy, shift_norm
from energy_at.objectives import DER, Objective, Weighted
from energy_at.training import AdversarialTraining, FastAT, StandardAT, Trades, sgd

net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4))
ball, x, y, z = Linf(0.1), torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), torch.rand(2, 4)
objective = Objective({"der": Weighted(DER("all"))})
calls = {
    "ball": [lambda v=v, m=m: m(net, v) for m in (FastAT, StandardAT, Trades)
             for v in (8 / 255, None, net)] + [lambda: pgd(0.1), lambda: fgsm("x")],
    "net": [lambda v=v, m=m: m(v, ball) for m in (FastAT, Trades) for v in (None, len, 1)]
           + [lambda: sgd(None)],
    "regularizers": [lambda v=v: FastAT(net, ball, v) for v in ([DER("all")], {"a": 1}, 1)],
    "attack": [lambda: FastAT(net, ball, attack=8 / 255),
               lambda: AdversarialTraining(net, 0.1, objective, val_attacks={})],
    "objective": [lambda: AdversarialTraining(net, pgd(ball), {}, val_attacks={})],
    "val_attacks": [lambda v=v: FastAT(net, ball, val_attacks=v) for v in (0.1, [pgd(ball)])],
    "optimizer": [lambda v=v: FastAT(net, ball, optimizer=v) for v in (0.1, torch.optim.SGD)],
    "schedule": [lambda: FastAT(net, ball, schedule="cosine")],
    "seed": [lambda: FastAT(net, ball, seed=-1)],
    "model": [lambda v=v: pgd(ball)(v, x, y) for v in (None, "net", torch.nn.Linear)],
    "images": [lambda v=v: pgd(ball)(net, v, y) for v in (None, net, x[0], x.half(), 255 * x)],
    "labels": [lambda v=v, f=f: f(v) for v in (None, y.float(), y[:, None], y[:1], y - 1)
               for f in (lambda v: pgd(ball)(net, x, v), lambda v: joint_energy(z, v))],
    "logits": [lambda v=v: marginal_energy(v) for v in (None, net, z[0], z.long())],
    "generator": [lambda: pgd(ball)(net, x, y, generator=0)],
    "memory": [lambda: pgd(ball)(net, x, y, memory=[])],
    "keep_graph": [lambda: pgd(ball)(net, x, y, keep_graph=1)],
    "targets": [lambda v=v: pgd(ball)(net, x, y, targets=v) for v in (y, z[:, :2], "y")],
    "pair": [lambda v=v, f=f: f(v) for v in (None, z) for f in (shift_norm, DER("all"), objective)],
    "adv": [lambda v=v: LogitPair(z, v, y) for v in (None, z[:1], z[:, :2])],
}
for argument, wrong in calls.items():
    for call in wrong:
        try:
            call()
            print(argument, "accepted")
        except ValueError as error:
            line = str(error)
            print(line if "\\n" in line or not line.startswith(argument) else argument)
"""


@pytest.mark.slow
def test_a_wrong_argument_is_named_in_one_line():
    """In a process of its own: the type checker of the tests would be faster."""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", WRONG]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    named = done.stdout.splitlines()
    assert len(named) > 40
    assert set(named) == {
        "ball", "net", "regularizers", "attack", "objective", "val_attacks", "optimizer",
        "schedule", "seed", "model", "images", "labels", "logits", "generator", "memory",
        "keep_graph", "targets", "pair", "adv",
    }  # fmt: skip
