"""Live view of runs in a browser: a page, and the numbers that it requests."""

import errno
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from energy_at.reporting.panels import specification
from energy_at.watch.state import Watch

HOST = "127.0.0.1"  # this machine only: everybody who can connect sees the runs
NAMES = (HOST, "localhost")
PAGE = Path(__file__).with_name("page.html")


class PageServer(ThreadingHTTPServer):
    """Serves the page and its numbers to this machine.

    Args:
        watch: The runs.
        port: 0 for any that is free.
        interval: Seconds between two requests of the page.
    """

    def __init__(self, watch: Watch, port: int, interval: float) -> None:
        super().__init__((HOST, port), _Handler)
        self.interval = interval
        self._watch = watch
        self._lock = threading.Lock()

    def answer(self, known: dict[str, int]) -> bytes:
        """``answer``, one request at a time."""
        with self._lock:
            return answer(self._watch, known)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        url = urlsplit(self.path)
        if host not in NAMES:  # another site, whose name was made to resolve to this machine
            self.send_error(403)
        elif url.path == "/":
            self._send(_page(self.server.interval), "text/html; charset=utf-8")
        elif url.path == "/data":
            self._send(self.server.answer(_known(url.query)), "application/json")
        else:
            self.send_error(404)

    def log_message(self, *_: Any) -> None:
        """Keeps requests out of the terminal."""

    def _send(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)


def page_server(watch: Watch, port: int, interval: float) -> PageServer:
    """A ``PageServer``, not yet serving.

    Raises:
        ValueError: if the port is not available.
    """
    try:
        return PageServer(watch, port, interval)
    except OSError as error:
        taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
        why = "is in use, or reserved" if taken else str(error.strerror)
        raise ValueError(
            f"port={port} {why}: choose another, or port=0 for any that is free"
        ) from error


def answer(watch: Watch, known: dict[str, int]) -> bytes:
    """The state of all runs, with the curves that the page does not have yet, as JSON.

    Args:
        watch: The runs.
        known: Versions that the page has, by folder.
    """
    watch.update()
    runs = []
    for state, run in zip(watch.states(), watch.runs.values(), strict=True):
        if known.get(state["folder"]) != state["version"]:
            state["curves"] = run.curves()
        runs.append(state)
    return json.dumps({"behind": watch.behind, "runs": runs}, allow_nan=False).encode()


def _page(interval: float) -> bytes:
    settings = json.dumps({"interval": 1000 * interval, "sections": specification()})
    return PAGE.read_text(encoding="utf-8").replace("/*SETTINGS*/", settings).encode()


def _known(query: str) -> dict[str, int]:
    try:
        found = json.loads(parse_qs(query).get("known", ["{}"])[0])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
