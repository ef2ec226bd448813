"""What the entries import before they know what they are asked: it is waited for every time."""

import subprocess
import sys

READERS = ("report", "watch", "dashboard")  # they read what others have left
HEAVY = ("lightning", "torch", "torchmetrics", "torchvision", "wandb", "scipy.stats", "sklearn")
HELP = f"""
import sys
from contextlib import suppress
from energy_at import {", ".join(READERS)}
from energy_at.mistakes import command_line

for entry in ({", ".join(READERS)}):
    sys.argv = [entry.__name__, "--help"]
    with suppress(SystemExit):
        command_line(entry.main)
sys.stderr.write(str([name for name in {HEAVY} if name in sys.modules]))
"""


def test_entries_that_only_read_answer_without_what_trains():
    command = [sys.executable, "-c", HELP]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("python -m energy_at.") >= len(READERS)
    assert done.stderr == "[]"
