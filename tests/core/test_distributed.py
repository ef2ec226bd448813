"""Several processes that train one network: as one process with the whole batch would."""

import csv
import socket

import pytest
import torch
from torch import nn

from energy_at import train
from energy_at.attacks.threat import L2, Linf
from energy_at.config import build as config
from energy_at.core.distributed import Part, summed
from energy_at.core.rng import PartNoise, normal_like, part_of, shares_like, uniform_like
from energy_at.runs.checkpoints import read_checkpoint
from energy_at.runs.folder import RunFolder
from energy_at.training.sync_batch_norm import SharedBatchNorm
from tests.helpers.running import ONE_EPOCH, TINY_BN, fitted, typed

LIKE = {"uniform": uniform_like, "normal": normal_like, "shares": shares_like}
LIKE |= {"linf": Linf(0.1).sample, "l2": L2(0.5).sample}


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


# Noise


@pytest.mark.parametrize("like", LIKE.values(), ids=LIKE)
def test_all_parts_together_draw_what_one_process_draws(like):
    x = torch.rand(7, 3, 8, 8).to(memory_format=torch.channels_last)
    whole = like(x, torch.Generator().manual_seed(3))
    parts = []
    for rank in range(3):
        part = Part(7, rank, 3)
        parts.append(like(x[part.place], part.noise(torch.Generator().manual_seed(3))))
    assert torch.equal(torch.cat(parts), whole)
    assert len({image.sum().item() for image in torch.cat(parts)}) == 7


def test_chosen_images_of_a_part_draw_their_own_numbers():
    x, chosen = torch.rand(6, 3, 8, 8), torch.tensor([False, True, True])
    own = PartNoise(torch.Generator().manual_seed(1), slice(3, 6), 6)
    few = part_of(own, chosen)
    whole = uniform_like(x, torch.Generator().manual_seed(1))
    assert torch.equal(uniform_like(x[4:], few), whole[4:])


# Batch norm


def test_shared_batch_norm_of_one_process_is_batch_norm():
    torch.manual_seed(1)
    x = (3 * torch.randn(8, 4, 5, 5) + 2).double().requires_grad_()
    plain = nn.BatchNorm2d(4).double()
    nn.init.uniform_(plain.weight)
    shared = nn.Sequential(nn.BatchNorm2d(4)).double()
    shared[0].load_state_dict(plain.state_dict())
    SharedBatchNorm().apply(shared)
    for _ in range(2):
        expected, found = plain(x), shared(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(shared[0].running_var, plain.running_var)
    torch.testing.assert_close(shared[0].running_mean, plain.running_mean)
    seen = [torch.autograd.grad(out.square().sum(), x, create_graph=True)[0]
            for out in (expected, found)]  # fmt: skip
    torch.testing.assert_close(seen[1], seen[0])
    twice = [torch.autograd.grad(grad.square().sum(), x)[0] for grad in seen]
    torch.testing.assert_close(twice[1], twice[0])
    SharedBatchNorm().revert(shared)
    assert type(shared[0]) is nn.BatchNorm2d


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

    def built(cfg):
        module = build_module(cfg)
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
    ],
    ids=lambda choices: choices[0],
)
def test_two_processes_train_every_method_as_one(tmp_path, in_double, choices):
    setting = (*TINY_BN, *choices, "dataset.batch_size=147", "trainer.max_epochs=2",
               "optimizer.lr=0.01")  # fmt: skip
    fitted(tmp_path / "one", *setting)
    fitted(tmp_path / "two", *setting, *TWO)
    assert differences(tmp_path / "one", tmp_path / "two") == []


# Mistakes


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("trainer.devices=0", "trainer.devices=0 must be a number of processes >= 1, or auto"),
        ("trainer.strategy=fsdp", "trainer.strategy=fsdp must be auto or ddp"),
        ("dataset.batch_size=447", "leaves 1 of 448 images to the last batch, fewer than the 2"),
        ("dataset.eval_batch_size=63", "leaves 1 of 64 images to the last batch, fewer than the 2"),
        ("trainer.num_nodes=2", "trainer.num_nodes=2 needs a process on every node"),
        ("seed=1", "only python -m energy_at.train and hydra/launcher=basic can"),
    ],
)
def test_what_several_processes_cannot_do_gets_one_line_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, mistake, said
):
    monkeypatch.chdir(tmp_path)
    code, _, err = typed(monkeypatch, capsys, train.main, *ONE_EPOCH, "trainer.devices=2", mistake)
    assert code == 1
    assert said in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("port", ["taken", "abc", "70000"])
def test_a_port_that_cannot_be_had_gets_one_line(tmp_path, monkeypatch, capsys, port):
    monkeypatch.chdir(tmp_path)
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = str(other.getsockname()[1]) if port == "taken" else port
        monkeypatch.setenv("MASTER_PORT", port)
        code, _, err = typed(monkeypatch, capsys, train.main, *ONE_EPOCH, "trainer.devices=2")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith(f"error: MASTER_PORT={port} ")
    assert list(tmp_path.iterdir()) == []
