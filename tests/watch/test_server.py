"""The page of a run that is watched, and the numbers that it asks for."""

import json
import socket
import struct
import subprocess
import threading
from http.client import HTTPConnection

import pytest

from energy_at.watch.server import PageServer
from energy_at.watch.state import Watch
from tests.helpers.pages import BROWSER, Page
from tests.helpers.watching import train


@pytest.fixture
def served(begun):
    """A run that trains, its server, and what asks it."""
    train(begun, [0, 1], alarm=7)
    with PageServer(Watch(["run"]), 0, 0.2) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(server, path, host="127.0.0.1", method="GET"):
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, headers={"Host": host})
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


def test_requests_of_any_kind_leave_the_terminal_alone(served, capfd):
    assert ask(served, "/", method="HEAD") == (200, b"")
    assert ask(served, "/data?known=" + 20_000 * "[")[0] == 200
    assert ask(served, "/data", host="[bad")[0] == 400
    for _ in range(5):  # clients that go away
        with socket.create_connection(served.server_address) as gone:
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.sendall(b"GET /data HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert ask(served, "/")[0] == 200
    assert capfd.readouterr().err == ""


def test_a_damaged_run_is_named_to_the_page(served, begun, capfd):
    with begun.metrics_file.open("a") as file:
        file.write("junk\n")
    status, content = ask(served, "/data")
    assert status == 500
    assert b"metrics.csv is damaged: line" in content
    assert capfd.readouterr().err == ""


def test_nobody_else_is_answered(served):
    assert served.server_address[0] == "127.0.0.1"
    assert ask(served, "/data", host="evil.example:8000")[0] == 403
    for host in ("localhost:9000", "LOCALHOST", "127.0.0.1:80"):
        assert ask(served, "/data", host=host)[0] == 200
    for host in ("localhost:80.evil.example", "user@localhost", "localhost/evil.example", "a b"):
        assert ask(served, "/data", host=host)[0] == 400
    with socket.create_connection(served.server_address) as two:
        two.sendall(b"GET /data HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert two.recv(100).startswith(b"HTTP/1.0 400 ")
    assert ask(served, "/../config.yaml")[0] == 404


@pytest.mark.slow
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


def test_a_port_in_use_is_refused(begun):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"^port={port} is in use, .* port=0 for any that is"):
            PageServer(Watch(["run"]), port, 1.0)
