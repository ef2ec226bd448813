"""What is typed to watch runs."""

import shutil
from pathlib import Path

import pytest

from energy_at.watch import __main__ as entry
from tests.helpers.running import typed
from tests.helpers.watching import train


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "name one of run=FOLDER, runs=[FOLDER,FOLDER]"),
        (["run=a", "runs=[b]"], "name one of run=FOLDER, runs=[FOLDER,FOLDER]"),
        (["runs=[]"], "names no run"),
        (["run=nowhere"], "nowhere is not a run folder"),
        (["run=other"], "other is not a run folder"),
        (["run=run", "port=70000"], "port=70000 must be"),
        (["run=run", "interval=0"], "interval=0 must be"),
        (["run=run", "+colour=red"], "nothing reads colour"),
    ],
)
def test_a_mistake_gets_one_line(begun, here, monkeypatch, capsys, argv, said):
    (here / "other").mkdir()
    (here / "other" / "mine.txt").touch()
    code, out, err = typed(monkeypatch, capsys, entry.main, *argv)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert said in err


def test_a_number_may_name_a_run_and_nothing_is_written(begun, here, monkeypatch, capsys):
    train(begun, [0])
    shutil.move("run", "7")
    before = sorted(Path.cwd().rglob("*"))
    code, out, err = typed(monkeypatch, capsys, entry.main, "run=7", "once=true")
    assert (code, err) == (0, "")
    assert "step 4/12" in out
    assert sorted(Path.cwd().rglob("*")) == before


def test_ctrl_c_ends_the_server_in_one_line(begun, monkeypatch, capsys):
    def pressed(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("socketserver.BaseServer.serve_forever", pressed)
    code, out, err = typed(monkeypatch, capsys, entry.main, "run=run", "browser=true", "port=0")
    assert (code, err) == (130, "\nstopped\n")
    assert out.startswith("http://127.0.0.1:")
