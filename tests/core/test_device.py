"""The machine: freed memory is kept for the next step on request, and no run's memory grows."""

import platform
import resource
import sys

import pytest
import torch
from lightning import Callback

from energy_at.benchmark.measure import resident_memory
from energy_at.core.device import keep_freed_memory
from tests.helpers.running import TINY, prepared

MIB = 2**20
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the Linux kernel")
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tells glibc")


def page_faults(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def step():
    # Blocks larger than glibc keeps of its own accord, held together as activations are.
    return len([torch.ones(size * MIB // 4) for size in (40, 36, 36)])


@glibc
def test_a_large_block_that_was_freed_costs_no_page_the_second_time():
    assert keep_freed_memory()
    for _ in range(3):
        step()
    pages = 112 * MIB // resource.getpagesize()
    assert page_faults(step) < pages // 20


class Held(Callback):
    def __init__(self):
        self.at = {}

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step % 250 == 0:
            self.at[trainer.global_step] = resident_memory()


@linux
@pytest.mark.slow
def test_2000_steps_hold_no_more_memory_than_500(tmp_path):
    run = prepared(tmp_path, *TINY, "trainer.max_epochs=200", "trainer.max_steps=2000", "reg=der")
    held = Held()
    run.trainer.callbacks.append(held)
    run.trainer.fit(run.module, run.data)
    assert max(held.at) == 2000
    assert held.at[2000] - held.at[500] < 4 * MIB
