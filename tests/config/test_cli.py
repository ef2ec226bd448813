"""One decorator for all commands: their help, and where flags may stand."""

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from energy_at import evaluate, report, sample, train
from energy_at.config import cli
from energy_at.config.cli import _open_output, command
from energy_at.core.files import CONF
from tests.helpers.running import typed


@pytest.mark.parametrize("entry", [train, evaluate, report])
def test_help_shows_an_example(entry, monkeypatch, capsys):
    code, out, _ = typed(monkeypatch, capsys, entry.main, "--help")
    assert code == 0
    assert f"python -m {entry.__name__} " in out


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("entry", [train, evaluate, report, sample])
def test_help_lists_the_groups_that_a_command_takes_and_no_others(entry, monkeypatch, capsys):
    _, out, _ = typed(monkeypatch, capsys, entry.main, "--help")
    listed = dict(
        re.findall(r"^([a-z]+): (\w.*, .*)$", out.partition("\n\nAnything")[0], re.MULTILINE)
    )
    for group in (path.name for path in Path(CONF).iterdir() if path.is_dir()):
        choices = {file.stem for file in Path(CONF, group).glob("*.yaml")}
        code, _, err = typed(monkeypatch, capsys, entry.main, f"{group}=nosuch", "run=run")
        assert code == 1
        taken = f"{group}=nosuch must be " in err
        if len(choices) > 1:
            assert taken == (group in listed), err
        if group in listed:
            assert {name for name in listed[group].split(", ") if "/" not in name} == choices


@pytest.mark.usefixtures("here")
def test_help_lists_choices_in_folders_and_those_of_a_user(monkeypatch, capsys):
    Path("own", "reg").mkdir(parents=True)
    for name in ("mine", "a$x", "$(touch b)"):
        Path("own", "reg", f"{name}.yaml").touch()
    _, out, _ = typed(monkeypatch, capsys, train.main, "--config-dir=own", "--help")
    assert re.search(r"^reg: .*\ba\$x, .*\bder, .*\bmine\b", out, re.MULTILINE)
    assert re.search(r"^experiment: .*\brivals/liet, ", out, re.MULTILINE)


@pytest.mark.usefixtures("here")
def test_the_flag_of_a_sweep_may_stand_anywhere(type_train):
    _, _, err = type_train("reg=none", "-m", "hydra.run.dir=x", "seed=0,1")
    assert err.startswith("error: hydra.run.dir=x is where a single run is written")


@pytest.mark.usefixtures("here")
def test_a_text_is_printed_and_whom_to_trust_is_in_no_configuration(monkeypatch, capsys):
    seen = []

    @command("train")
    def main(cfg):
        seen.append(cfg)
        return "a table"

    assert typed(monkeypatch, capsys, main, "seed=7", "trust=[]") == (0, "a table\n", "")
    assert seen[0].seed == 7
    assert "trust" not in seen[0]


@pytest.mark.usefixtures("here")
def test_who_presses_ctrl_c_is_told_what_is_left(monkeypatch, capsys):
    @command("report", on_interrupt="{out} is as it was")
    def main(cfg):
        raise KeyboardInterrupt

    code, out, err = typed(monkeypatch, capsys, main, "runs=mine", "out=there")
    assert (code, out, err) == (130, "", "\nstopped: there is as it was\n")


@pytest.mark.parametrize("becomes", [None, AttributeError("of a library's clean-up")])
@pytest.mark.usefixtures("forget_interrupts")
def test_a_ctrl_c_that_a_library_loses_stops_the_command(here, monkeypatch, capsys, becomes):
    def lose(cfg):
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        if becomes is not None:
            raise becomes

    monkeypatch.setattr(cli, "check", lose)
    found = typed(monkeypatch, capsys, train.main, "hydra.run.dir=run")
    assert found == (130, "", "\nstopped: nothing was written\n")
    assert not (here / "run").exists()
    begun = []
    work = command("report")(lambda _: begun.append("too late"))
    assert typed(monkeypatch, capsys, work, "runs=mine") == (130, "", "\nstopped\n")
    assert not begun


def test_closed_output_goes_nowhere(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    _open_output()
    assert sys.stdout.name == os.devnull
    print("gone")
    sys.stdout.close()


WORKER = """
import os, time
from energy_at.config.cli import _end_with_parent
parent = os.getpid()
if os.fork() == 0:
    print("begun", flush=True)
    {wait}
    _end_with_parent(parent)
time.sleep(30)
print("still there", flush=True)
"""


@pytest.mark.parametrize("wait", ["", "while os.getppid() == parent: pass"])
def test_the_worker_of_a_sweep_ends_soon_after_the_sweep_was_killed(wait):
    command = [sys.executable, "-c", WORKER.format(wait=wait)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sweep:
        assert sweep.stdout.readline() == "begun\n"
        sweep.kill()
        sweep.wait()
        assert sweep.stdout.read() == ""  # returns when the worker has ended too


def test_names_with_other_letters_are_found_where_the_locale_is_ascii(here):
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    (here / "rün").mkdir()
    (here / "rün" / "config.yaml").write_text("seed: [", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "energy_at.export", 'run="rün"'],
        env=os.environ | ascii_only,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: r?n/config.yaml is damaged: line ")
