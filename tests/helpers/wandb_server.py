"""A W&B server, as far as a run or ``wandb sync`` needs one: it keeps what it is sent."""

import gzip
import json
import re
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.history, self.summary, self.runs = [], {}, []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_):
        """A client may hang up."""

    def streamed(self, files):
        history = files.get("wandb-history.jsonl", {}).get("content", [])
        self.history += [json.loads(line) for line in history]
        for line in files.get("wandb-summary.json", {}).get("content", []):
            self.summary = json.loads(line)

    def answer(self, query, variables):
        name = re.search(r"(query|mutation)\s+(\w+)", query)[2]
        if name == "UpsertBucket":
            self.runs.append(variables)
        project = {"id": "p", "name": "project", "entity": {"id": "e", "name": "me"}}
        bucket = {"id": "b", "name": self.runs[-1]["name"] if self.runs else "", "config": "{}",
                  "displayName": "run", "historyLineCount": 0, "project": project}  # fmt: skip
        files = [{"name": name, "uploadUrl": f"{self.url}/{name}"}
                 for name in variables.get("files") or []]  # fmt: skip
        return {
            "viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}",
                       "teams": {"edges": []}},
            "serverInfo": {"features": []},
            "model": {"bucket": None},
            "entity": {"organization": None},
            "upsertBucket": {"bucket": bucket, "inserted": True},
            "createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files},
        }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply({})

    def do_PUT(self):
        self.body()
        self.reply({})

    def do_POST(self):
        found = {}
        with suppress(ValueError):  # telemetry is no JSON
            found = json.loads(self.body())
        if "file_stream" in self.path:
            self.server.streamed(found.get("files") or {})
            return self.reply({})
        if "graphql" not in self.path:
            return self.reply({})
        return self.reply({"data": self.server.answer(found["query"], found["variables"] or {})})

    def body(self):
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(content) if self.headers.get("Content-Encoding") else content

    def reply(self, content):
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Says nothing."""


@contextmanager
def serving():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
