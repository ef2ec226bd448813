"""The machine that a command computes on: its device, processor and memory."""

import ctypes
import os
import platform
import re
import sys
from pathlib import Path

import torch

# parameters of glibc's mallopt
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_ROOM = 256 << 20  # by which the heap grows beyond a request, so that aligned blocks fit again
_NEVER = 2**31 - 1


def device_of(name: str) -> torch.device:
    """The device of ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ValueError: if it is not available.
    """
    cuda = torch.cuda.is_available()
    if name == "cuda" and not cuda:
        raise ValueError("device=cuda, but torch finds no GPU: device=auto takes what there is")
    return torch.device("cuda" if cuda and name != "cpu" else "cpu")


def available_cores() -> int:
    """CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def processor_name() -> str:
    """Model of the processor, and whether it computes in bf16."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    model = re.search(r"^model name\s*: (.+)$", text, re.M)
    name = model[1] if model else platform.processor() or platform.machine() or sys.platform
    return name + (", bf16 in hardware" if re.search("avx512_bf16|amx_bf16", text) else "")


def keep_freed_memory() -> bool:
    """Makes the C library keep freed blocks for the next step; whether it supports that.

    glibc maps every block of 32 MiB or more anew, and the kernel zeroes it page by page; the
    activations of a training step at full size are such blocks. Computed values do not change.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    parameters = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _ROOM}
    results = [bool(library.mallopt(*item)) for item in parameters.items()]
    return all(results)
