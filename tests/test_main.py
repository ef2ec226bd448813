"""One name for all commands, and completion in the shell."""

import re
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


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("energy-at tr", ["train "]),
        ("energy-at train reg=de", ["reg=der", "reg=der_gradalign"]),
        ("energy-at train -m reg=none,aae", ["reg=none,aaer"]),
        ("energy-at train callbacks=[em", ["callbacks=[ema"]),
        ("energy-at evaluate run=runs/of=a,b/mi", ["run=runs/of=a,b/mine"]),
        ("energy-at train reg=der trainer.max_ep", ["trainer.max_epochs="]),
        ("energy-at train experiment=tr", ["experiment=trades_der"]),
        (
            "energy-at train experiment=rivals/l",
            ["experiment=rivals/liet", "experiment=rivals/liet_der"],
        ),
        ("energy-at evaluate spl", ["split="]),
        ("energy-at evaluate run=runs/mi", ["run=runs/mine"]),
    ],
)
def test_the_shell_completes_commands_choices_keys_and_paths(typed, offered, tmp_path):
    for runs in ("runs", "runs/of=a,b"):
        (tmp_path / runs / "mine").mkdir(parents=True)
    script = f"""{completion("bash")}
        COMP_LINE={typed!r}
        COMP_WORDS=({typed})
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _energy_at
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines() == offered


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
