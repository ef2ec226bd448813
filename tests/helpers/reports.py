"""Finished runs written by hand, with what other commands leave in them, and reports, read."""

import functools
import json

from PIL import Image

from energy_at.runs.folder import RunFolder
from tests.helpers.running import TINY, config

composed = functools.cache(config)
BASE = (*TINY, "trainer.max_epochs=12")
SOUND = tuple(0.2 + 0.02 * i for i in range(12))
LOST = (0.2, 0.3, 0.4, 0.42, 0.44, 0.1, *[0.0] * 6)
OVERFITTED = (0.3, 0.44, 0.46, 0.46, 0.46, 0.46, 0.42, 0.40, 0.38, 0.36, 0.34, 0.32)
ODD = 'a<b>&"c'


def log(pgd):
    """Three steps and a validation for each epoch."""
    energies = [f"train/delta_energy/{name}" for name in ("marginal", "joint", "shift_norm")]
    keys = ["train/loss", *energies, "train/aae_share", "train/acc/clean", "train/acc/adv"]
    held_out = [f"val/acc/{name}" for name in ("clean", "fgsm", "pgd")]
    lines = [",".join(["step", "epoch", *keys, *held_out])]
    for epoch, accuracy in enumerate(pgd):
        trained = [f"{step},{epoch}" + f",{step / 100}" * 7 + ",,,"
                   for step in range(3 * epoch + 1, 3 * epoch + 4)]  # fmt: skip
        lines += [*trained, f"{3 * epoch + 3},{epoch}" + "," * 7 + f",0.9,0.5,{accuracy}"]
    return "\n".join(lines) + "\n"


def write(path, *overrides, pgd=SOUND, **record):
    """A finished run as a training leaves it, of a fixed environment."""
    folder = RunFolder.create(path, composed(*BASE, *overrides), [*BASE, *overrides])
    about = {
        "command": ["train.py", *overrides], "python": "3.11.7", "packages": {"torch": "2.6.0"},
        "git_commit": "abc", "platform": "Linux", "cpu_count": 2, "threads": 1, "device": "cpu",
        "overrides": [*BASE, *overrides],
    }  # fmt: skip
    folder.environment_file.write_text(json.dumps(about | record))
    if pgd:
        folder.metrics_file.write_text(log(pgd))
    shares = {"clean": 0.8, "fgsm": 0.5, "pgd": 0.4, "n": 100}
    folder.write_results({"last": {"step": 36, "test": shares}})
    return folder


def evaluate(run):
    folder = run.path / "evaluation" / "strong"
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps(CONTENT))
    Image.new("RGB", (8, 8), "red").save(folder / "curve.png")


def analyse(run):
    folder = run.path / "analysis" / "last"
    folder.mkdir(parents=True)
    (folder / "table.csv").write_text("attack,dE(x)\npgd,-1.5\n")
    Image.new("RGB", (8, 8), "blue").save(folder / "quiver.png")


def sections(folder):
    """Sections of the Markdown by title."""
    text = (folder / "report" / "report.md").read_text()
    parts = [part.partition("\n") for part in text.split("\n## ")[1:]]
    return {title: body for title, _, body in parts}


def bytes_of(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def accuracy(attack, eps, text, share):
    known = {"attack": attack, "label": attack, "eps": eps, "eps_text": text, "images": 1000}
    interval = {"low": share - 0.03, "high": share + 0.03}
    return known | {"correct": int(1000 * share), "accuracy": share} | interval


CONTENT = {
    "network": {"which": "best"},
    "dataset": {"name": "cifar10", "split": "test", "images": 1000, "of": 10000, "seed": 0},
    "norm": "linf",
    "accuracies": [
        accuracy("clean", 0.0, "0", 0.8),
        accuracy("pgd", 16 / 255, "16/255", 0.25),
        accuracy("fgsm", 8 / 255, "8/255", 0.5),
        accuracy("pgd", 8 / 255, "8/255", 0.4),
    ],
    "checks": [
        {"name": "one", "passed": True, "finding": "f", "meaning": "m"},
        {"name": "two", "passed": False, "finding": "f", "meaning": "m"},
        {"name": "three", "passed": None, "finding": "f", "meaning": "m"},
    ],
    "left_out": [],
}


FAILED = [
    "job 1 failed: reg.weight=-1 must be a finite number >= 0",
    "job 2 failed: the loss is nan at step 3",
]


def failing_sweep(path):
    """A sweep of three jobs: one failed before it had a configuration, one while it trained."""
    write(path / "0", pgd=())
    begun = write(path / "2", "seed=1", pgd=())
    begun.results_file.unlink()
    begun.error_file.write_text("the loss is nan at step 3\n")
    (path / "1").mkdir()
    (path / "1" / "error.txt").write_text("reg.weight=-1 must be a finite number >= 0\n")
    return str(path)
