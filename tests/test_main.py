"""One name for all commands, and completion in the shell."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from energy_at.__main__ import COMMANDS, completion
from tests.helpers.running import everything

PYTHON = sys.executable


def energy_at(*words, **options):
    command = [PYTHON, "-m", "energy_at", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_alone_it_lists_the_commands_and_every_one_exists():
    done = energy_at()
    assert (done.returncode, done.stderr) == (0, "")
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
        assert find_spec(f"energy_at.{name}")


def test_a_command_gets_its_words_and_its_exit_code(here):
    done = energy_at("train", "reg=derr")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "der" in done.stderr
    assert "python -m energy_at.export" in energy_at("export", "--help").stdout
    assert not everything()


def test_an_unknown_command_is_named_with_the_nearest():
    done = energy_at("trian", "reg=der")
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: the command trian must be train, .*\(did you mean train\?\)\n", done.stderr
    )


SHELL = """
    {completion}
    typed() {{
        {emulation}
        COMP_LINE={line}
        COMP_WORDS=({words})
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _energy_at
        printf '%s\\n' "${{COMPREPLY[@]}}"
    }}
    typed
"""
EMULATION = {  # how zsh calls a function that completes in bash
    "bash": "",
    "zsh": "emulate -L sh; setopt kshglob noshglob braceexpand nokshautoload",
}


@pytest.mark.parametrize(
    "shell",
    [
        pytest.param(
            shell,
            marks=pytest.mark.skipif(shutil.which(shell) is None, reason=f"no {shell} here"),
        )
        for shell in EMULATION
    ],
)
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tr", ["train "]),
        ("train reg=de", ["reg=der", "reg=der_gradalign"]),
        ("train -m reg=none,aae", ["reg=none,aaer"]),
        ("train callbacks=[em", ["callbacks=[ema"]),
        ("train 'callbacks=[default,em", ["callbacks=[default,ema"]),
        ("train reg=der trainer.max_ep", ["trainer.max_epochs="]),
        ("train experiment=tr", ["experiment=trades_der"]),
        ("train experiment=rivals/li", ["experiment=rivals/liet", "experiment=rivals/liet_der"]),
        ("evaluate spl", ["split="]),
        ("evaluate run=runs/mi", ["run=runs/mine"]),
        ("evaluate run=~/mi", ["run={home}/mine"]),
        ("evaluate run=runs/of=a,b/mi", ["run=runs/of=a,b/mine"]),
        ("evaluate run=./runs/bo", [r"run=./runs/boo\ \;\ exit"]),
        ("evaluate run=./odd/", [r"run=./odd/\$\(touch\ a\)", r"run=./odd/\`touch\ b\`"]),
        ("evaluate run={home}/odd/$", [r"run={home}/odd/\$\(touch\ a\)"]),
        ("evaluate run=odd/{a,b", [""]),
        ('evaluate "run=./odd/', [""]),
        ("evaluate run=runs/bo", [r"run=runs/boo\ \;\ exit"]),
    ],
)
def test_the_shell_completes_commands_choices_keys_and_paths(typed, offered, shell, tmp_path):
    """What is offered can be typed: the name of a stranger's folder is no command."""
    typed = typed.replace("{home}", str(tmp_path))
    for folder in (
        "mine",
        "runs/mine",
        "runs/of=a,b/mine",
        "runs/boo ; exit",
        "odd/$(touch a)",
        "odd/`touch b`",
    ):
        (tmp_path / folder).mkdir(parents=True)
    script = SHELL.format(
        completion=completion(shell),
        emulation=EMULATION[shell],
        line=shlex.quote(f"energy-at {typed}"),
        words=shlex.join(["energy-at", *typed.split()]),
    )
    done = subprocess.run(
        [shell, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.splitlines() == [line.replace("{home}", str(tmp_path)) for line in offered]


def test_a_shell_without_a_script_is_refused():
    done = energy_at("completion", "tcsh")
    assert (done.returncode, done.stderr) == (
        1, "error: completion tcsh must be one of bash, zsh\n",
    )  # fmt: skip


@pytest.mark.parametrize("typed", ["--help", "--version", "completion"])
def test_a_full_device_behind_the_output_is_one_line(typed):
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [PYTHON, "-m", "energy_at", typed],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (
        1,
        "error: standard output: No space left on device\n",
    )
