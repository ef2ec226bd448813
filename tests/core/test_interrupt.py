"""A Ctrl-C is remembered, even if a library has caught it."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from energy_at.core.interrupt import (
    end_stopped,
    remember_interrupts,
    stop_if_interrupted,
    was_interrupted,
)

pytestmark = pytest.mark.usefixtures("forget_interrupts")


def test_a_lost_ctrl_c_is_raised_again():
    remember_interrupts()
    stop_if_interrupted()
    with suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it must be raised at once")
    assert was_interrupted()
    with pytest.raises(KeyboardInterrupt):
        stop_if_interrupted()
    remember_interrupts()  # the next command of this process
    assert not was_interrupted()


def test_who_ignores_ctrl_c_goes_on_ignoring_it():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    remember_interrupts()
    signal.raise_signal(signal.SIGINT)
    assert not was_interrupted()


def test_an_empty_folder_that_hydra_has_just_made_is_removed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run_job(output_dir):
        Path(output_dir).mkdir(parents=True)
        raise KeyboardInterrupt

    try:
        run_job("runs/digits/now")
    except KeyboardInterrupt as error:
        with pytest.raises(SystemExit) as ended:
            end_stopped(error)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "\nstopped: nothing was written\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("pressed", "ends"), [("in an import", ""), ("later", "regular end")])
def test_a_program_that_is_stopped_in_an_import_ends_at_once(tmp_path, pressed, ends):
    press = "import signal; signal.raise_signal(signal.SIGINT)"
    nameless = f"exec('{press}', {{}})"  # as scipy's import does
    (tmp_path / "heavy.py").write_text(nameless if pressed == "in an import" else "")
    program = (
        "import atexit\n"
        "from energy_at.core.interrupt import end_stopped\n"
        "atexit.register(print, 'regular end', end='')\n"
        f"try:\n    import heavy\n    {press}\n"
        "except KeyboardInterrupt as error:\n    end_stopped(error, hint='no more')\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, ends, "\nstopped: no more\n")
