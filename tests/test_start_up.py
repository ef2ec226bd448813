"""What the entries import before they know what they are asked: it is waited for every time."""

import subprocess
import sys

READERS = ("report", "watch", "dashboard")  # they read what others have left
HEAVY = ("lightning", "torch", "torchmetrics", "torchvision", "wandb", "scipy.stats", "sklearn")


def test_entries_that_only_read_import_nothing_that_trains():
    code = (
        f"import sys, {', '.join(f'energy_at.{name}' for name in READERS)}\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
