"""What a result was made with: versions, machine, commit, command line."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from energy_at import __version__

PACKAGES = ("torchvision", "lightning", "hydra-core", "numpy", "torchmetrics")


def environment() -> dict[str, Any]:
    import torch  # not needed to read runs

    cuda = torch.cuda.is_available()
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "packages": {"energy_at": __version__, "torch": torch.__version__}
        | {name: version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
    }


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
