"""Locks of folders: held by one process, freed by its end, whatever that is."""

import errno
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time

import pytest

from energy_at.core import lock
from energy_at.core.lock import InUseError, locked, waiting_for

HOLD = """
import sys, time
from pathlib import Path
from energy_at.core.lock import locked
file = Path(sys.argv[1])
with locked(file, file.parent):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run" / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_of_another_process_is_refused_until_it_is_killed(tmp_path, holder):
    folder = tmp_path / "run"
    before = (folder / ".lock").read_bytes()
    said = f"run is in use by process {holder.pid} on {platform.node()}: wait until it ends"
    with pytest.raises(InUseError, match=said), locked(folder / ".lock", folder):
        pass
    assert (folder / ".lock").read_bytes() == before
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(folder / ".lock", folder):
        assert json.loads((folder / ".lock").read_text())["process"] == os.getpid()
    assert not list(folder.iterdir())


def test_a_lock_leaves_nothing_behind(tmp_path):
    file = tmp_path / "a" / "b" / ".lock"
    for _ in range(2):
        with locked(file, file.parent):
            with pytest.raises(InUseError), locked(file, file.parent):
                pass
            assert file.is_file()
        assert not list(tmp_path.iterdir())
    with locked(file, file.parent):
        (file.parent / "mine").touch()
    assert [path.name for path in file.parent.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("process", "host", "is_free"),
    [
        (1, platform.node(), False),
        (2**22 + 1, platform.node(), True),  # above the highest number of a process
        (1, "elsewhere", True),
        (None, None, True),
    ],
)
def test_without_locks_of_the_file_system_the_process_decides(
    tmp_path, monkeypatch, process, host, is_free
):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    file = tmp_path / ".lock"
    file.write_text(json.dumps({"process": process, "host": host}) if process else "")
    if is_free:
        with locked(file, tmp_path):
            pass
        assert not file.exists()
    else:
        with pytest.raises(InUseError, match="in use by process 1 on"), locked(file, tmp_path):
            pass


def test_who_needs_what_another_process_makes_waits_for_it(tmp_path, holder, capsys):
    file = tmp_path / "run" / ".lock"
    threading.Timer(0.5, holder.kill).start()
    started = time.monotonic()
    with waiting_for(file, file.parent / "made"):
        assert time.monotonic() - started > 0.4
        assert json.loads(file.read_text())["process"] == os.getpid()
    said = f"waiting for another process that makes {file.parent / 'made'}\n"
    assert capsys.readouterr().err == said


def test_a_link_in_place_of_a_lock_empties_no_file(tmp_path):
    """A stranger's run folder may hold one."""
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to("../mine")
    with pytest.raises(OSError, match=r"run'$"), locked(tmp_path / "run/.lock", tmp_path / "run"):
        pass
    assert (tmp_path / "mine").read_text() == "precious"
