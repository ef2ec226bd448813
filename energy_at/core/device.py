"""The device that a command computes on."""

import platform
import re
import sys
from pathlib import Path

import torch


def device_of(wish: str) -> torch.device:
    """The device of ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ValueError: if it is not available.
    """
    cuda = torch.cuda.is_available()
    if wish == "cuda" and not cuda:
        raise ValueError("device=cuda, but torch finds no GPU: device=auto takes what there is")
    return torch.device("cuda" if cuda and wish != "cpu" else "cpu")


def processor_name() -> str:
    """Model of the processor, and whether it computes in bf16."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    model = re.search(r"^model name\s*: (.+)$", text, re.M)
    name = model[1] if model else platform.processor() or platform.machine() or sys.platform
    return name + (", bf16 in hardware" if re.search("avx512_bf16|amx_bf16", text) else "")
