"""Whether threads of ours would wait for each other, because other programs are running too."""

import os
import sys
import time
from pathlib import Path

import torch

LOAD = Path("/proc/loadavg")  # of Linux
_LOOKS, _PAUSE = 5, 0.02  # seconds


def hint_at_contention() -> None:
    """Says so in one line: a small network on two threads can be a hundred times slower for it."""
    line = contention()
    if line is not None:
        sys.stderr.write(f"{line}\n")


def contention() -> str | None:
    """What is wrong and what to do; ``None`` where nothing is, or where it cannot be known."""
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    if threads == 1 or torch.cuda.is_available() or not LOAD.is_file():
        return None
    others = _running() - 1
    if others + threads <= cores:
        return None
    return (
        f"hint: {others} more {'thread is' if others == 1 else 'threads are'} running on this "
        f"machine of {cores} cores, and {threads} of ours will wait for each other: "
        f"OMP_NUM_THREADS={max(1, cores - others)} before the command may be many times faster"
    )


def _running() -> int:
    """Threads that want to run, this one among them: the median of some looks."""
    seen = []
    for _ in range(_LOOKS):
        seen.append(int(LOAD.read_text().split()[3].partition("/")[0]))
        time.sleep(_PAUSE)
    return sorted(seen)[_LOOKS // 2]
