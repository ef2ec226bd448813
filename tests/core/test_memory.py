"""Freed memory: kept for the next step where that is asked for, and no run's grows."""

import platform
import resource
import sys

import pytest
import torch
from lightning import Callback

from energy_at.core.memory import forget_peak, keep_freed_memory, peak_resident, resident
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


@linux
def test_the_peak_is_that_of_the_work_since():
    keep_freed_memory()
    forget_peak()
    held = resident()
    step()
    assert 100 * MIB < peak_resident() - held < 150 * MIB
    forget_peak()
    assert peak_resident() - resident() < 20 * MIB


class Held(Callback):
    def __init__(self):
        self.at = {}

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step % 250 == 0:
            self.at[trainer.global_step] = resident()


@linux
@pytest.mark.slow
def test_2000_steps_hold_no_more_memory_than_500(tmp_path):
    run = prepared(tmp_path, *TINY, "trainer.max_epochs=200", "+trainer.max_steps=2000", "reg=der")
    held = Held()
    run.trainer.callbacks.append(held)
    run.trainer.fit(run.module, run.data)
    assert max(held.at) == 2000
    assert held.at[2000] - held.at[500] < 4 * MIB
