# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the fault suite, and the table at its end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "collections")]

from harness import BASELINE, RESULT, Host  # noqa: E402 - found through the path above

TABLE: dict[str, list[int]] = {}
NOT_RUN: dict[str, str] = {}


class Tally:
    """Counts tries of one fault, and which of them were survived."""

    def __init__(self, fault: str) -> None:
        self.count = TABLE.setdefault(fault, [0, 0])

    def add(self, survived: bool) -> bool:
        self.count[0] += 1
        self.count[1] += survived
        return survived


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """The row of the table that a test's `fault` mark names."""
    return Tally(request.node.get_closest_marker("fault").args[0])


@pytest.fixture(scope="session")
def uv() -> str:
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    assert found, "uv is one of the control node's tools: make the virtual environment first"
    return found


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory, uv: str) -> Path:
    """A cache of uv that holds the few wheels of the suite, so that no test but those of the network needs an index."""
    folder = tmp_path_factory.mktemp("cache")
    tree = tmp_path_factory.mktemp("fill") / "environment"
    environment = {**os.environ, "UV_CACHE_DIR": str(folder)}
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(tree)], check=True, env=environment)
    argv = [uv, "pip", "install", "--quiet", "--python", str(tree / "bin/python")]
    for requirements in (BASELINE, [RESULT]):
        subprocess.run([*argv, *requirements], check=True, env=environment, timeout=300)
    return folder


@pytest.fixture
def make_host(tmp_path: Path, uv: str, cache: Path) -> Callable[..., Host]:
    def make(folder: str = "host", **settings: Any) -> Host:
        return Host(tmp_path / folder, uv, cache, **settings)

    return make


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts small filesystems, and takes them away."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"small{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip("mounting a small filesystem needs root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(name): the row of the table that a test belongs to")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    mark = item.get_closest_marker("fault")
    if mark and report.skipped:
        NOT_RUN[mark.args[0]] = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    write = terminalreporter.write_line
    width = max([len(fault) for fault in [*TABLE, *NOT_RUN]], default=5)
    write(f"{'fault':{width}}  tries  survived  lost")
    for fault, (tries, survived) in sorted(TABLE.items()):
        if tries:
            write(f"{fault:{width}}  {tries:5}  {survived:8}  {tries - survived:4}")
    for fault, why in sorted(NOT_RUN.items()):
        if not TABLE.get(fault, [0])[0]:
            write(f"{fault:{width}}  not run: {why}")
