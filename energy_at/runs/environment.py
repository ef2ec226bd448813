"""The environment of a run: what its numbers depend on besides the configuration."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("energy_at", "torch", "torchvision", "lightning", "hydra-core", "numpy", "torchmetrics")


def environment() -> dict[str, Any]:
    import torch  # not needed to read runs

    cuda = torch.cuda.is_available()
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES} | {"torch": torch.__version__},
        "git_commit": _git_commit(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Commit of the source, with ``-dirty`` if it differs; ``None`` outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        result = subprocess.run(
            [*command, "--abbrev=40"], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return result.stdout.strip() or None
