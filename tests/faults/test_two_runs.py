# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two runs at once, and a run whose connection is lost while a module works."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Host, wait_for


@pytest.mark.fault("5 two runs at once")
@pytest.mark.parametrize("state", ["open", "promoted"])
def test_the_second_run_is_refused(make_host: Callable[..., Host], tally: Any, state: str) -> None:
    host = make_host()
    first = host.start(pause=6)
    wait_for(host, (state,), first)
    if state == "promoted":
        os.kill(first.pid, signal.SIGSTOP)
    second = host.run()
    if state == "promoted":
        os.kill(first.pid, signal.SIGCONT)
    said, _ = first.communicate(timeout=300)
    refused = second.rc != 0 and "belongs to another run" in second.said and f"process {first.pid}" in second.said
    assert tally.add(refused and first.returncode == 0 and host.is_result() and host.is_safe()), said + second.said


@pytest.mark.fault("5 two runs at once")
def test_an_installer_that_outlives_its_run_is_waited_for(make_host: Callable[..., Host], tally: Any) -> None:
    host = make_host()
    first = host.start(pause=8)
    until = time.monotonic() + 60
    while not any("install.py" in command for command in host.processes(first).values()):
        assert time.monotonic() < until, "the installer never started"
        time.sleep(0.05)
    time.sleep(1)  # until it has the lock
    host.kill(first, "playbook")
    host.settle(first)
    assert any("install.py" in command for command in host.processes(first).values()), "it did not outlive its run"
    again = host.run()
    assert tally.add(again.rc == 0 and host.is_result() and host.is_safe()), again.said


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """An SSH server of this user on the loopback interface, and what Ansible needs to reach it."""
    program = os.environ.get("FAULTS_SSHD") or shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if not program:
        pytest.skip("no sshd here; FAULTS_SSHD names one")
    for name in ("host_key", "user_key"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(argv, check=True)
    keys = tmp_path / "authorized"
    keys.write_text((tmp_path / "user_key.pub").read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        f"AuthorizedKeysFile={keys}",
        f"HostKey={tmp_path / 'host_key'}",
        "ListenAddress=127.0.0.1",
        f"PidFile={tmp_path / 'pid'}",
        "StrictModes=no",
        "UsePAM=no",
        "PermitRootLogin=yes",
        f"SetEnv=PYTHONPATH={os.environ.get('PYTHONPATH', '')}",
    ]
    argv = [program, "-D", "-e", "-f", "/dev/null", "-p", str(port)]
    for option in options:
        argv += ["-o", option]
    server = subprocess.Popen(argv, stderr=subprocess.PIPE)
    assert server.stderr is not None
    if b"listening" not in server.stderr.readline():
        server.kill()
        pytest.skip("the SSH server does not start here")
    yield {
        "ansible_connection": "ssh",
        "ansible_host": "127.0.0.1",
        "ansible_port": port,
        "ansible_ssh_private_key_file": str(tmp_path / "user_key"),
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
        "ansible_ssh_args": "-o ControlMaster=no -o ControlPath=none",
        "server": server.pid,
    }
    server.terminate()
    server.wait()


def sessions(server: int) -> list[int]:
    """The processes of an SSH server that serve a connection."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == server:
            found.append(int(path.parts[2]))
    return found


@pytest.mark.fault("6 SSH connection lost mid-module")
@pytest.mark.parametrize("state", ["freezing", "cloning", "open", "promoting", "promoted"])
def test_lost_connection(make_host: Callable[..., Host], sshd: dict[str, Any], tally: Any, state: str) -> None:
    server = sshd.pop("server")
    repository = Path(__file__).parents[2]
    host = make_host(settings=sshd)
    host.settings["python"] = str(host.folder / "python")
    # A login has none of this process's environment, so the interpreter that the installer step uses brings it along.
    lines = [f"export {name}='{host.environ()[name]}'" for name in ("UV_CACHE_DIR", "UV_PYTHON", "HOME")]
    lines.append(f"export PYTHONPATH='{repository}/collections'")
    (host.folder / "python").write_text(
        "\n".join(["#!/bin/sh", *lines, f'exec {host.environ()["UV_PYTHON"]} "$@"', ""])
    )
    (host.folder / "python").chmod(0o755)
    run = host.start(pause=2)
    assert wait_for(host, (state,), run), run.communicate()[0]
    for pid in sessions(server):
        os.kill(pid, signal.SIGKILL)
    host.settle(run)
    between = host.is_baseline() or host.is_result()
    again = host.run()
    assert tally.add(between and again.rc == 0 and host.is_result() and host.is_safe()), again.said
