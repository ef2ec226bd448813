"""The machine: freed memory is kept for the next step on request, and no run's memory grows."""

import platform
import resource
import subprocess
import sys

import pytest
from lightning import Callback

from energy_at.benchmark.measure import resident_memory
from tests.helpers.running import TINY, prepared

MIB = 2**20
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the Linux kernel")
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its allocator is glibc's")


FAULTS = """
import resource, torch
from energy_at.core.device import keep_freed_memory

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        # blocks larger than glibc keeps of its own accord, held together as activations are
        assert len([torch.ones(size << 18) for size in (40, 36, 36)]) == 3
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

mapped_anew = faults(2)
assert keep_freed_memory()
faults(20)  # where the blocks come to lie in the heap settles within the first steps
print(mapped_anew, faults(10))
"""


@pytest.mark.slow
@glibc
def test_large_blocks_that_were_freed_cost_no_page_once_they_have_a_place():
    """In a process of its own, as a training: where blocks lie depends on all before."""
    command = [sys.executable, "-c", FAULTS]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    mapped_anew, kept = map(int, printed.split())
    pages = 112 * MIB // resource.getpagesize()
    assert mapped_anew > pages
    assert kept < pages // 20


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
