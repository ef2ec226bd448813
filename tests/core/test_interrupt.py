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


@pytest.mark.parametrize("times", [1, 2])
def test_one_that_is_pressed_in_an_import_is_raised_after_it_or_when_pressed_again(tmp_path, times):
    press = "import signal; signal.raise_signal(signal.SIGINT)"
    (tmp_path / "heavy.py").write_text(times * f"{press}\n" + "print('whole', end='')")
    program = (
        "import atexit, time\n"
        "atexit.register(time.sleep, 0.3)\n"  # in which none may come
        "from energy_at.core.interrupt import end_stopped, remember_interrupts\n"
        "remember_interrupts()\n"
        "try:\n    import heavy\n    time.sleep(60)\n"
        "except KeyboardInterrupt as error:\n    end_stopped(error, hint='no more')\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (130, "\nstopped: no more\n")
    assert done.stdout == ("whole" if times == 1 else "")
