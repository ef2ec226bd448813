"""Several processes that train one network: as one process with the whole batch would."""

import csv

import pytest
import torch
from torch import nn

from energy_at.config import build as config
from energy_at.core.distributed import Part, summed
from energy_at.runs.checkpoints import read_checkpoint
from energy_at.runs.folder import RunFolder
from tests.helpers.running import TINY_BN, fitted

# Parts


@pytest.mark.parametrize(("whole", "world"), [(6, 1), (6, 2), (7, 3), (3, 3), (100, 8)])
def test_parts_are_the_batch_in_its_order_and_differ_by_one_image_at_most(whole, world):
    batch = list(range(whole))
    parts = [batch[Part(whole, rank, world).place] for rank in range(world)]
    assert [image for part in parts for image in part] == batch
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert list(map(len, parts)) == Part(whole, 0, world).sizes


def test_the_only_part_is_the_batch_itself():
    own, generator = torch.rand(5, 3), torch.Generator()
    assert Part(5).joined(own) is own
    assert Part(5).noise(generator) is generator
    assert summed(own) is own


# Two processes


class Double(nn.Module):
    """In fp64: what fp32 rounds differently, sign gradients make another training within steps."""

    def __init__(self, net):
        super().__init__()
        self.net = net.double()

    def forward(self, x):
        return self.net(x.double())


@pytest.fixture
def in_double(monkeypatch):
    build_module = config.build_module

    def built(cfg, **options):
        module = build_module(cfg, **options)
        module.net = Double(module.net)
        return module

    monkeypatch.setattr(config, "build_module", built)


TWO = ("trainer.devices=2", "trainer.strategy=ddp_fork")


def rows_of(run):
    with RunFolder(run).metrics_file.open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def differences(one, two):
    """Names of all that two runs have logged, or learned, other than alike, without timings."""
    rows, others = rows_of(one), rows_of(two)
    weights, found = (
        read_checkpoint(RunFolder(run).checkpoint("last"))["state_dict"] for run in (one, two)
    )
    if [row.keys() for row in rows] != [row.keys() for row in others]:
        return ["names of what is logged"]
    if weights.keys() != found.keys():
        return ["names of the weights"]
    return [
        f"{name} in row {i}"
        for i, (row, other) in enumerate(zip(rows, others, strict=True))
        for name in sorted(row.keys() - {"perf/images_per_s"})
        if other[name] != pytest.approx(row[name], rel=1e-5, abs=1e-6)
    ] + [
        name
        for name, value in weights.items()
        if not torch.allclose(found[name], value, rtol=1e-5, atol=1e-7)
    ]


def test_two_processes_train_as_one(tmp_path, in_double):
    """Odd batches, noise, batch norm, a regularizer that looks at the batch as a whole."""
    odd = ("dataset.batch_size=147", "dataset.eval_batch_size=43")
    setting = (*TINY_BN, *odd, "attack=rs_fgsm", "reg=der", "trainer.max_epochs=1",
               "optimizer.lr=0.01")  # fmt: skip
    fitted(tmp_path / "one", *setting)
    fitted(tmp_path / "two", *setting, *TWO)
    assert differences(tmp_path / "one", tmp_path / "two") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices",
    [
        ("reg=gradalign",),
        ("reg=elle_a", "attack=n_fgsm"),
        ("reg=aaer", "attack=n_fgsm"),
        ("training.awp.gamma=0.01", "reg=der"),
        ("loss=trades", "attack=trades", "threat=l2"),
        ("callbacks=ema", "attack=pgd", "attack.restarts=2"),
        ("attack=liet", "loss=liet", "loss.label_smoothing=0.6", "loss.ramp=0", "reg=der"),
        ("attack=sora", "loss.label_smoothing=0.4"),
        ("attack=sora", "reg=der"),
        ("attack=rs_fgsm", "loss=nuat", "loss.ramp=0"),
    ],
    ids=lambda choices: choices[0],
)
def test_two_processes_train_every_method_as_one(tmp_path, in_double, choices):
    setting = (*TINY_BN, *choices, "dataset.batch_size=147", "trainer.max_epochs=2",
               "optimizer.lr=0.01")  # fmt: skip
    fitted(tmp_path / "one", *setting)
    fitted(tmp_path / "two", *setting, *TWO)
    assert differences(tmp_path / "one", tmp_path / "two") == []
