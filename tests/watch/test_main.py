"""A run that is watched in the browser, and what is typed for it."""

import json
import shutil
import socket
import subprocess
import threading
from http.client import HTTPConnection
from pathlib import Path

import pytest

from energy_at.watch import __main__ as entry
from energy_at.watch.state import Watch
from tests.helpers.pages import BROWSER, Page
from tests.helpers.running import typed
from tests.helpers.watching import train

# In the browser


@pytest.fixture
def served(begun):
    """A run that trains, its server, and what asks it."""
    train(begun, [0, 1], alarm=7)
    with entry.PageServer(Watch(["run"]), 0, 0.2) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(server, path, host="127.0.0.1"):
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_the_page_is_whole_and_loads_nothing_from_elsewhere(served):
    status, content = ask(served, "/")
    html = content.decode()
    page = Page(html)
    assert status == 200
    assert page.mistakes == []
    assert page.loaded == []
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in html


def test_the_curves_of_a_run_are_sent_once(served, begun):
    status, content = ask(served, "/data")
    assert status == 200
    (found,) = json.loads(content)["runs"]
    assert [p[0] for p in found["curves"]["train/aae_share"]] == list(range(1, 9))
    known = json.dumps({found["folder"]: found["version"]}).replace('"', "%22").replace(" ", "")
    assert "curves" not in json.loads(ask(served, f"/data?known={known}")[1])["runs"][0]
    train(begun, [2])
    (found,) = json.loads(ask(served, f"/data?known={known}")[1])["runs"]
    assert len(found["curves"]["train/aae_share"]) == 12


def test_nobody_else_is_answered(served):
    assert served.server_address[0] == "127.0.0.1"
    assert ask(served, "/data", host="evil.example:8000")[0] == 403
    assert ask(served, "/data", host="localhost:9000")[0] == 200
    assert ask(served, "/../config.yaml")[0] == 404


@pytest.mark.skipif(BROWSER is None, reason="no chromium here: the page is not looked at")
def test_a_browser_draws_every_curve_of_a_run(served, here):
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-proxy-server",
        f"--user-data-dir={here / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
        f"http://127.0.0.1:{served.server_port}/",
    ]  # fmt: skip
    dom = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    page = Page(dom)
    drawn = [a["aria-label"] for a in page.all("svg") if "aria-label" in a]
    assert drawn == [
        "dE(x), training",
        "abnormal adversarial examples",
        "FGSM - PGD accuracy, held-out",
        "PGD accuracy, held-out",
        "FGSM accuracy, held-out",
        "alarms",
    ]
    assert all("NaN" not in a.get("d", "") for a in page.all("path"))
    assert page.text.count("CO alarm") >= len(drawn)
    assert "step 8/12" in page.text


# What is typed


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


def test_a_port_in_use_gets_one_line(begun, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = typed(
            monkeypatch, capsys, entry.main, "run=run", "browser=true", f"port={port}"
        )
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: port={port} is in use")


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
