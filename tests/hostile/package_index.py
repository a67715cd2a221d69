# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A package index of the site's own, from a folder of wheels and archives."""

from __future__ import annotations

import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pip._internal.models.index import PyPI  # the default of the tools themselves, where no other is set


class Index(http.server.BaseHTTPRequestHandler):
    """An index, and under any other path a git repository that asks for a password."""

    folder: Path
    others: bool  # whether what it has not got is asked of the index that uv is set up for

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].strip("/").rpartition("/")[2]
        body = b""
        if (self.folder / name).is_file():
            self.send_response(200)
            body = (self.folder / name).read_bytes()
        elif self.path.startswith("/simple/"):
            body = "".join(self.link(file) for file in self.files(name)).encode()
            if not body and self.others:
                self.send_response(302)
                index = os.environ.get("UV_DEFAULT_INDEX", PyPI.simple_url).rstrip("/")
                self.send_header("Location", f"{index}/{name}/")
            else:
                self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html")
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def files(self, name: str) -> list[Path]:
        return [file for file in self.folder.glob("*") if file.name.split("-")[0].replace("_", "-") == name]

    @staticmethod
    def link(file: Path) -> str:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return f'<a href="/{file.name}#sha256={digest}">{file.name}</a>'

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def served(folder: Path, others: bool = False) -> Iterator[str]:
    """Serve the folder; yields the address."""
    handler = type("Handler", (Index,), {"folder": folder, "others": others})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
