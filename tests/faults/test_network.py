# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The index disappears: a wheel that breaks off half-way, an index that answers nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from harness import RESULT, Host


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), RESULT]
    subprocess.run(argv, check=True, capture_output=True, timeout=120)
    return next(folder.glob("*.whl"))


@pytest.fixture
def index(wheel: Path) -> Iterator[tuple[str, dict[str, int]]]:
    """An index on the loopback interface that serves as much of the wheel as it is told to."""
    share = {"percent": 100}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith(".whl"):
                body = wheel.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) * share["percent"] // 100])
                self.close_connection = True
                return
            body = f'<a href="/files/{wheel.name}">{wheel.name}</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple", share
    server.shutdown()
    server.server_close()


@pytest.mark.fault("4 network cut, index gone")
@pytest.mark.parametrize("percent", [0, 10, 50, 99])
def test_download_breaks_off(make_host: Callable[..., Host], index: Any, tally: Any, percent: int) -> None:
    url, share = index
    share["percent"] = percent
    host = make_host(env={"FAULTS_INDEX": url, "UV_HTTP_RETRIES": "0", "NO_PROXY": "127.0.0.1"})
    cut = host.run()
    survived = cut.rc != 0 and host.is_baseline() and host.is_safe()
    share["percent"] = 100
    again = host.run()
    assert tally.add(survived and again.rc == 0 and host.is_result()), cut.said + again.said


@pytest.mark.fault("4 network cut, index gone")
def test_index_gone(make_host: Callable[..., Host], tally: Any) -> None:
    host = make_host(env={"FAULTS_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"})
    gone = host.run()
    assert tally.add(gone.rc != 0 and host.is_baseline() and host.is_safe()), gone.said
    assert "Install into the candidate" in gone.said
