"""The machine: what it is, and the most that it is seen to do."""

import os
import platform
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from energy_at.benchmark.stepwise import Around

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Peak:
    """The machine's own peak at one operation: its work per second bounds everything else.

    Args:
        operation: ``matmul``, square matrices; ``convolution``, 3x3 with 128 channels.
        precision: Of its operands.
        device: Where it runs.
        images: Of a batch of the convolution.
    """

    images = 0
    loading = None

    def __init__(
        self, operation: str, precision: str, device: torch.device, images: int = 32
    ) -> None:
        large = device.type == "cuda"
        kind: dict[str, Any] = {"dtype": PRECISIONS[precision], "device": device}
        self.operation = operation
        self.times = 20 if large else 1
        if operation == "matmul":
            size = 8192 if large else 1024
            self.a, self.b = torch.randn(size, size, **kind), torch.randn(size, size, **kind)
        else:
            images = 8 * images if large else images
            a, b = torch.randn(images, 128, 16, 16, **kind), torch.randn(128, 128, 3, 3, **kind)
            self.a, self.b = (t.contiguous(memory_format=torch.channels_last) for t in (a, b))

    @torch.no_grad()
    def turn(self, around: Around = nullcontext) -> None:
        """Computes it."""
        with around():
            for _ in range(self.times):
                self._compute()

    def close(self) -> None:
        """Lets go of the operands."""

    def _compute(self) -> Tensor:
        if self.operation == "matmul":
            return self.a @ self.b
        return F.conv2d(self.a, self.b, padding=1)


def described(device: torch.device) -> dict[str, Any]:
    """Processor or GPU, its threads, versions, and how busy the machine is."""
    about: dict[str, Any] = {
        "device": _processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        about |= {"device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    if hasattr(os, "getloadavg"):
        about["load"] = round(os.getloadavg()[0], 1)  # processes that wait for a core
    return about


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    extensions = " ".join(lines)
    bf16 = ", bf16 in hardware" if "avx512_bf16" in extensions or "amx_bf16" in extensions else ""
    return (names[0] if names else platform.processor() or platform.machine()) + bf16
