# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for an OpenAI-compatible server that reads documents. It reads nothing: no GPU and no model are needed.

It answers every page with the text of this project's test document, or wrongly in one of the ways of MODES. It stands
where tests cannot have a GPU, proves that OlmOCR's pipeline runs and is judged rightly, and says nothing about a model.

As a program: `python stand_in_server.py --port 8000 [--mode ok]`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "stand-in"

TEXT = """Test document

Seventeen blue herons crossed the frozen lake at dawn.
Their shadows were counted twice, once by the miller and once by the clock.
Nothing else was written down that day."""

FRONT_MATTER = """---
primary_language: en
is_rotation_valid: True
rotation_correction: 0
is_table: False
is_diagram: False
---
"""

MODES = ("ok", "other-text", "no-text", "no-front-matter", "cut-short", "error", "no-models", "silent")


def completion(mode: str) -> dict[str, Any]:
    """The body of a reply to a chat completion."""
    content = {
        "other-text": FRONT_MATTER + "A page about something else.",
        "no-text": FRONT_MATTER,
        "no-front-matter": TEXT,
    }.get(mode, FRONT_MATTER + TEXT)
    return {
        "id": "stand-in",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content},
                "finish_reason": "length" if mode == "cut-short" else "stop",
            }
        ],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 60, "total_tokens": 1060},
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if self.path == "/v1/models" and self.server.mode != "no-models":
            self._reply(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        else:
            self._reply(404, {"error": "not found"})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        if self.path != "/v1/chat/completions" or request.get("model") != MODEL:
            self._reply(404, {"error": f"no model {request.get('model')!r} at {self.path}"})
        elif self.server.mode == "error":
            self._reply(500, {"error": "out of memory"})
        elif self.server.mode == "silent":
            time.sleep(3600)
        else:
            self._reply(200, completion(self.server.mode))

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, mode: str) -> None:
        super().__init__((host, port), Handler)
        self.mode = mode
        self.requests: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


@contextlib.contextmanager
def serving(mode: str = "ok") -> Iterator[Server]:
    """A server on a free port of the loopback interface."""
    server = Server("127.0.0.1", 0, mode)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--mode", choices=MODES, default="ok")
    options = parser.parse_args()
    Server(options.host, options.port, options.mode).serve_forever()
