# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host reached by SSH: the connection is lost while a module works, or the host itself goes down and comes back."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import stopping
import yaml
from harness import KILLS, REPOSITORY, Host, Watcher

HOSTS = REPOSITORY / "tests/hosts"
PYTHON = "/usr/bin/python3"
WHOLE = KILLS >= 200


def said(*argv: str) -> str:
    """Run a program of the test hosts, and give what it said."""
    environment = {**os.environ, "CONTAINERS_CONF": str(HOSTS / "containers.conf")}
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, env=environment, timeout=600)
    return done.stdout.strip()


@dataclass
class Machine:
    """A test host."""

    container: str
    reached: dict[str, Any]

    def run(self, *argv: str, **environment: str) -> str:
        """Run a command there as root, past SSH."""
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        return said("podman", "exec", *variables, self.container, *argv)

    def namespace(self) -> tuple[int, str]:
        """Its first process, as this machine numbers it, and the namespace that all of its processes are in."""
        first = int(said("podman", "inspect", "--format={{.State.Pid}}", self.container))
        return first, os.readlink(f"/proc/{first}/ns/pid")

    def take_down(self) -> None:
        """Take its power away."""
        said("podman", "kill", "--signal=KILL", self.container)

    def bring_up(self) -> None:
        """Give it back, and wait for the SSH server."""
        said("podman", "start", self.container)
        port = self.reached["ansible_port"] = int(said("podman", "port", self.container, "22/tcp").rpartition(":")[2])
        until = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                    assert connection.recv(4) == b"SSH-"
                return
            except (OSError, AssertionError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)


@dataclass
class Remote(Host):
    """An environment on a test host, in a folder that both see at the same path."""

    machine: Machine = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        # A login has none of this process's environment, so the installer step brings its own.
        python = self.folder / "python"
        lines = [f"export {name}='{value}'" for name, value in self.variables().items()]
        python.write_text("\n".join(["#!/bin/sh", *lines, f'exec {PYTHON} "$@"', ""]))
        python.chmod(0o755)
        self.settings = {"python": str(python)}

    def variables(self) -> dict[str, str]:
        return {
            "UV_CACHE_DIR": str(self.cache),
            "UV_PYTHON": PYTHON,
            "HOME": str(self.home),
            "PYTHONPATH": str(REPOSITORY / "collections"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def call(self, argv: list[str]) -> str:
        return self.machine.run(*argv, **self.variables())

    def argv(self, **changes: Any) -> list[str]:
        return super().argv(**self.machine.reached, **changes)

    def start(self, **changes: Any) -> subprocess.Popen[str]:
        self.first, self.inside = self.machine.namespace()
        return super().start(**changes)

    def processes(self, run: subprocess.Popen[str] | None = None) -> dict[int, str]:
        """Those of the control node, and all of the host but its first, the SSH server that listens."""
        found = super().processes(run)
        for process in Path("/proc").glob("[0-9]*"):
            pid = int(process.name)
            try:
                if os.readlink(process / "ns/pid") == self.inside and pid != self.first:
                    found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
        return {pid: command for pid, command in found.items() if stopping.is_alive(pid)}

    def is_module(self, command: str) -> bool:
        return command.strip() == PYTHON  # it comes through the connection, so it has no name


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A test host that sees this suite's folder, and the repository, at the same paths."""
    if not shutil.which("podman"):
        pytest.skip("needs podman, which tests/hosts/setup installs")
    shared = tmp_path_factory.getbasetemp()
    folder = tmp_path_factory.mktemp("hosts")
    run = f"faults{os.getpid()}"
    try:
        volumes = [f"--volume={shared}:{shared}", f"--volume={REPOSITORY}:{REPOSITORY}:ro"]
        said(str(HOSTS / "start"), run, "vm", str(folder), *volumes)
        reached = yaml.safe_load((folder / "hosts/host_vars/vm.yml").read_text())
        known_as = f" -o HostKeyAlias=[{reached['ansible_host']}]:{reached['ansible_port']}"
        reached.update(
            ansible_connection="ssh",
            ansible_become=True,
            ansible_python_interpreter=PYTHON,
            ansible_ssh_common_args=reached["ansible_ssh_common_args"] + known_as,
            # Each task has a connection of its own, so that one that is cut is the one of the task at work.
            ansible_ssh_args="-o ControlMaster=no -o ControlPath=none",
        )
        yield Machine(f"ocrfleet-{run}-vm", reached)
    finally:
        said(str(HOSTS / "stop"), run)


@pytest.fixture
def host(tmp_path: Path, uv: str, cache: Path, machine: Machine) -> Remote:
    program = cache / "uv"  # where the host sees it too
    if not program.exists():
        shutil.copy2(uv, program)
    return Remote(tmp_path / "host", str(program), cache, machine=machine)


def is_survived(host: Remote, run: subprocess.Popen[str], watcher: Watcher, tally: Any) -> None:
    """Let what was disturbed end, run it again, and count."""
    try:
        host.settle(run)
        again = host.run()
    finally:
        seen = watcher.stop()
    survived = not seen["wrong"] and again.rc == 0 and host.is_result() and host.is_safe()
    assert tally.add(survived), f"{seen}; journal at {host.state()}; {again.said}"


@pytest.mark.fault("6 SSH connection lost mid-module")
@pytest.mark.parametrize(
    "state", ["freezing", "cloning", "open", "promoting", "promoted"] if WHOLE else ["open", "promoting"]
)
def test_lost_connection(host: Remote, tally: Any, state: str) -> None:
    watcher = Watcher(host)
    run, stopped = host.held(state)
    assert host.machine.run("sh", "-c", "pkill -KILL -f '^sshd: ocr' && echo cut") == "cut"
    stopping.send(stopped, signal.SIGCONT)
    is_survived(host, run, watcher, tally)


@pytest.mark.fault("7 host restarted")
@pytest.mark.parametrize("state", ["cloning", "open", "promoted"] if WHOLE else ["open"])
def test_restarted_host(host: Remote, tally: Any, state: str) -> None:
    watcher = Watcher(host)
    run, stopped = host.held(state)
    host.machine.take_down()
    stopping.send(stopped, signal.SIGCONT)  # what is left of it is the control node's
    try:
        host.settle(run)
    finally:
        host.machine.bring_up()
    assert run.returncode, "the run ended before its host went down"
    is_survived(host, run, watcher, tally)
