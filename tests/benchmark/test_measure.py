"""What is measured is what happened: operations, memory, turns."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from energy_at.benchmark.measure import FlopCounter, measure, peak_memory
from energy_at.benchmark.rows import Loop
from energy_at.core.device import keep_freed_memory
from tests.helpers.nets import TinyNet

MIB = 2**20
CPU = torch.device("cpu")


def test_flops_are_those_that_torch_counts(batch):
    net, (x, y) = TinyNet(), batch
    counts = []
    for counter in (FlopCounter(), FlopCounterMode(display=False)):
        with counter:
            F.cross_entropy(net(x), y).backward()
        counts.append(counter)
    assert counts[0].flops == counts[1].get_total_flops() > 0


def test_rows_take_turns_and_each_begins_a_round():
    turns, announced, clock = [], [], iter(range(1000))

    def row(name):
        batches = iter([(torch.zeros(2), torch.ones(2))] * 9)
        return Loop(lambda *_: turns.append(name), batches, 1, CPU, lambda: 0.0)

    rows = {("scenario", name, "fp32"): row(name) for name in "abc"}
    results = measure(
        rows, CPU, lambda: float(next(clock)), repeats=3, warmup=1, advance=announced.append
    )
    assert [row for _, row, _ in announced] == turns
    assert "".join(turns) == "abc" + "abc" + "abc" + "bca" + "cab" + "abc"
    assert [result.row for result in results] == list("abc")
    assert all(result.seconds == [1.0] * 3 and result.images == 2 for result in results)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the Linux kernel")
def test_the_peak_is_that_of_the_turn():
    keep_freed_memory()

    def row(sizes):
        batches = iter([(torch.zeros(1), torch.zeros(1))])
        return Loop(lambda *_: [torch.ones(n * MIB // 4) for n in sizes], batches, 1, CPU, float)

    assert 100 * MIB < peak_memory(row((40, 36, 36)), CPU) < 150 * MIB
    assert peak_memory(row(()), CPU) < 20 * MIB
