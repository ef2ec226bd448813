"""Serves the page of ``watch`` and its numbers to this machine."""

import errno
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from energy_at.reporting.panels import specification
from energy_at.watch.state import Watch

HOST = "127.0.0.1"  # this machine only: everybody who can connect sees the runs
NAMES = (HOST, "localhost")
_HOST = re.compile(r"(?P<name>[\w.-]*|\[[\da-f:.]*\])(:\d*)?", re.IGNORECASE | re.ASCII)
PAGE = Path(__file__).with_name("page.html")


class PageServer(ThreadingHTTPServer):
    """Serves the page and its numbers to this machine.

    Args:
        port: 0 for any that is free.
        interval: Seconds between two requests of the page.

    Raises:
        ValueError: if the port is not available.
    """

    def __init__(self, watch: Watch, port: int, interval: float) -> None:
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
            why = "is in use, or reserved" if taken else str(error.strerror)
            raise ValueError(
                f"port={port} {why}: choose another, or port=0 for any that is free"
            ) from error
        settings = json.dumps({"interval": 1000 * interval, "sections": specification()})
        page = PAGE.read_text(encoding="utf-8").replace("/*SETTINGS*/", settings)
        self.page = page.encode()
        self._watch = watch
        self._lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a page that has gone away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def answer(self, known: dict[str, int]) -> bytes:
        """The state of all runs as JSON, with curves of other versions than the page has."""
        with self._lock:  # one request at a time
            self._watch.update()
            runs = self._watch.states()
            for state, run in zip(runs, self._watch.runs.values(), strict=True):
                if known.get(state["folder"]) != state["version"]:
                    state["curves"] = run.curves()
            behind = self._watch.behind
        return json.dumps({"behind": behind, "runs": runs}, allow_nan=False).encode()


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        try:
            (host,) = self.headers.get_all("Host", [""])
            url = urlsplit(self.path)
        except ValueError:
            self.send_error(400)
            return
        if not (named := _HOST.fullmatch(host)):
            self.send_error(400)
        elif named["name"].lower() not in NAMES:  # another site, with a name of this machine
            self.send_error(403)
        elif url.path == "/":
            self._send(self.server.page, "text/html; charset=utf-8")
        elif url.path == "/data":
            try:
                answer = self.server.answer(_known(url.query))
            except (ValueError, OSError) as error:  # of a damaged run
                self.send_error(500, explain=" ".join(str(error).split()))
                return
            self._send(answer, "application/json")
        else:
            self.send_error(404)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Keeps requests out of the terminal."""

    def _send(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _known(query: str) -> dict[str, int]:
    try:
        found = json.loads(parse_qs(query).get("known", ["{}"])[0])
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
