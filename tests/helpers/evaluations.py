"""What an evaluation leaves behind, read."""

import csv
import json
import re
from pathlib import Path

QUICK = ("attacks=[fgsm,pgd]", "steps=2", "restarts=2", "subset=20", "progress=false")


def outcomes(folder):
    """Columns of ``images.csv``."""
    with Path(folder, "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: [int(row[name]) for row in rows] for name in rows[0]}


def report(folder):
    return json.loads(Path(folder, "evaluation.json").read_text())


def written(out):
    """The folder that a command has written to, as it says."""
    return re.search(r"^written to (.*)/: ", out, re.MULTILINE)[1]
