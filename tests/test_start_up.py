"""What the commands import before they know what they are asked: it is waited for every time."""

import subprocess
import sys

import pytest

COMMANDS = (
    "train", "evaluate", "analyse", "sample", "report", "export", "dashboard", "benchmark",
    "doctor",
)  # fmt: skip
HEAVY = ("lightning", "matplotlib", "numpy", "scipy", "sklearn", "torch", "torchvision", "wandb")
ANSWER = f"""
import runpy, sys
sys.argv[1:] = sys.argv[2:]
try:
    runpy.run_module("energy_at." + sys.argv.pop(1), run_name="__main__")
finally:
    sys.stderr.write(str([name for name in {HEAVY} if name in sys.modules]))
"""


def answer(*argv):
    command = [sys.executable, "-c", ANSWER, "", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_answered_without_what_computes(command):
    done = answer(command, "--help")
    assert f"python -m energy_at.{command}" in done.stdout
    assert (done.returncode, done.stderr) == (0, "[]")


@pytest.mark.parametrize(
    "mistake", ["reg=derr", "no_such_key=1", "+foo=1", "threat.eps", "seed=abc", "reg=[der,aaer]"]
)
def test_a_mistake_is_answered_without_what_computes(here, mistake):
    done = answer("train", mistake)
    error, imported = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert not {"torch", "lightning", "matplotlib"} & set(eval(imported))
    assert done.returncode == 1
    assert not list(here.iterdir())
