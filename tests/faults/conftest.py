# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the fault suite, and the table at its end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "collections")]

from harness import BASELINE, RESULT, STAND_INS, Host, Lengths, measure  # noqa: E402 - found through the path above

TABLE: dict[str, list[int]] = {}
NOT_RUN: dict[str, str] = {}
LEFT: Counter[str] = Counter()


class Tally:
    """Counts tries of a fault, and which of them were survived."""

    def __init__(self, item: pytest.Item) -> None:
        self.item = item

    def add(self, survived: bool, fault: str = "") -> bool:
        """Count one try, in the row that the test's `fault` mark names unless another is given."""
        mark = self.item.get_closest_marker("fault")
        assert mark is not None
        # Reports bring these from the process that ran the test to the one that prints the table.
        self.item.user_properties.append(("tried", [fault or mark.args[0], survived]))
        return survived

    def left(self, state: str) -> None:
        """Note at which state a kill left the journal."""
        self.item.user_properties.append(("left", state))


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    return Tally(request.node)


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
    subprocess.run([sys.executable, str(HERE.parent / "stand_ins/light_stack.py"), str(folder / STAND_INS)], check=True)
    argv = [uv, "pip", "install", "--quiet", "--python", str(tree / "bin/python")]
    for requirements in (BASELINE, [RESULT]):
        subprocess.run([*argv, *requirements], check=True, env=environment, timeout=300)
    return folder


@pytest.fixture(scope="session")
def lengths(tmp_path_factory: pytest.TempPathFactory, uv: str, cache: Path) -> Lengths:
    """How long a run and each of its states take which nothing disturbs, on this machine now."""
    return measure(
        Host(tmp_path_factory.mktemp("length") / "host", uv, cache, service=True), ["before", "after", "never"]
    )


@pytest.fixture
def make_host(tmp_path: Path, uv: str, cache: Path) -> Iterator[Callable[..., Host]]:
    made: list[Host] = []

    def make(folder: str = "host", **settings: Any) -> Host:
        made.append(Host(tmp_path / folder, uv, cache, **settings))
        return made[-1]

    yield make
    for host in made:
        host.tell(None, signal.SIGKILL)  # a test that fails in the middle leaves stopped processes behind


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


def tried(item: pytest.Item) -> list[Any]:
    """What a test has counted so far."""
    properties: Any = item.user_properties
    return [value for name, value in properties if name == "tried"]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    mark = item.get_closest_marker("fault")
    if mark and report.skipped:
        why = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        report.user_properties.append(("not run", [mark.args[0], why]))
    elif mark and report.failed and report.when != "teardown" and all(value[1] for value in tried(item)):
        report.user_properties.append(("tried", [mark.args[0], False]))  # it broke before it could count


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    properties: Any = report.user_properties
    for name, value in properties:
        if name == "not run":
            NOT_RUN[value[0]] = value[1]
        elif name == "left":
            LEFT[value] += report.when == "call"
        elif report.when == "call" or (report.when == "setup" and report.failed):
            row = TABLE.setdefault(value[0], [0, 0])
            row[0] += 1
            row[1] += value[1]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    write = terminalreporter.write_line
    width = max([len(fault) for fault in [*TABLE, *NOT_RUN]], default=5)
    write(f"{'fault':{width}}  tries  survived  lost")

    def number(fault: str) -> int:
        return int(fault.split()[0])

    for fault, (tries, survived) in sorted(TABLE.items(), key=lambda row: (number(row[0]), row[0])):
        write(f"{fault:{width}}  {tries:5}  {survived:8}  {tries - survived:4}")
    for fault in sorted(NOT_RUN, key=number):
        write(f"{fault:{width}}  {'in part ' if fault in TABLE else ''}not run: {NOT_RUN[fault]}")
    write("journal after each kill: " + ", ".join(f"{state} {count}" for state, count in LEFT.most_common()))
