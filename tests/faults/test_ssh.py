# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host reached by SSH: the connection is lost while a module works, or the host itself goes down and comes back."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import REPOSITORY, Host, wait_for

PYTHON = "/usr/bin/python3"
PODMAN_ENV = {**os.environ, "CONTAINERS_CONF": str(REPOSITORY / "tests/hosts/containers.conf")}


def podman(*argv: str, **settings: Any) -> str:
    """Run podman, and give what it said."""
    done = subprocess.run(
        ["podman", *argv], check=True, stdout=subprocess.PIPE, text=True, env=PODMAN_ENV, timeout=300, **settings
    )
    return done.stdout.strip()


def python_version(*before: str) -> str:
    return subprocess.run([*before, PYTHON, "-V"], capture_output=True, text=True, env=PODMAN_ENV).stdout


def port_of(name: str) -> int:
    """The port of a test host's SSH server, once that answers."""
    port = int(podman("port", name, "22/tcp").rpartition(":")[2])
    until = time.monotonic() + 180
    while time.monotonic() < until:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                if connection.recv(4) == b"SSH-":
                    return port
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"no SSH server answers on {name}: {podman('logs', name)}")


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[str]:
    """A test host that sees this test's folder, and the repository, at the same paths. Gives its container's name."""
    if os.geteuid() != 0 or not shutil.which("podman"):
        pytest.skip("needs root and podman, which tests/hosts/setup installs")
    image = subprocess.run(
        [str(REPOSITORY / "tests/hosts/image")], check=True, stdout=subprocess.PIPE, text=True, timeout=600
    ).stdout.strip()
    name = f"ocrfleet-faults-{os.getpid()}-{os.urandom(3).hex()}"
    volumes = [f"--volume={tmp_path}:{tmp_path}", f"--volume={REPOSITORY}:{REPOSITORY}:ro"]
    key = "/etc/ssh/ssh_host_ed25519_key"
    start = f"mkdir -p /run/sshd && [ -e {key} ] || ssh-keygen -q -t ed25519 -N '' -f {key}; exec /usr/sbin/sshd -D -e"
    options = ["--label=ocrfleet-test-run=faults", "--cap-add=SYS_ADMIN", "--publish=127.0.0.1::22", *volumes]
    podman("run", "--detach", "--name", name, *options, image, "sh", "-c", start)
    try:
        if python_version("podman", "exec", name) != python_version():
            pytest.skip(f"{PYTHON} of this machine is another version than the test host's")
        yield name
    finally:
        podman("rm", "--force", "--time", "0", name)


@pytest.fixture
def host(make_host: Callable[..., Host], vm: str, tmp_path: Path) -> Host:
    """An environment on that host, and all that a run on it needs."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    authorize = "mkdir -p -m 700 /root/.ssh && cat > /root/.ssh/authorized_keys"
    podman("exec", "--interactive", vm, "sh", "-c", authorize, input=key.with_suffix(".pub").read_text())
    made = make_host(env={"UV_PYTHON": PYTHON})
    # What the installer step needs, where the host sees it; a login has none of this process's environment.
    shutil.copytree(made.cache, made.folder / "cache", symlinks=True)
    shutil.copy2(made.uv, made.folder / "uv")
    made.cache, made.uv = made.folder / "cache", str(made.folder / "uv")
    python = made.folder / "python"
    variables = {name: made.environ()[name] for name in ("UV_CACHE_DIR", "UV_PYTHON", "HOME", "PYTHONPATH")}
    lines = [f"export {name}='{value}'" for name, value in variables.items()]
    python.write_text("\n".join(["#!/bin/sh", *lines, f'exec {PYTHON} "$@"', ""]))
    python.chmod(0o755)
    made.settings = {
        "ansible_connection": "ssh",
        "ansible_host": "127.0.0.1",
        "ansible_port": port_of(vm),
        "ansible_user": "root",
        "ansible_python_interpreter": PYTHON,
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
        "ansible_ssh_args": "-o ControlMaster=no -o ControlPath=none",
        "python": str(python),
    }
    return made


@pytest.mark.fault("6 SSH connection lost mid-module")
@pytest.mark.parametrize("state", ["freezing", "cloning", "open", "promoting", "promoted"])
def test_lost_connection(host: Host, vm: str, tally: Any, state: str) -> None:
    run = host.start(pause=2)
    assert wait_for(host, (state,), run), run.communicate()[0]
    # Between two tasks there is no connection to cut: then the next one is.
    cut = ["podman", "exec", vm, "pkill", "-KILL", "-f", "^sshd: root"]
    while subprocess.run(cut, env=PODMAN_ENV).returncode and run.poll() is None:
        time.sleep(0.05)
    host.settle(run)
    between = host.is_baseline() or host.is_result()
    again = host.run()
    assert tally.add(between and again.rc == 0 and host.is_result() and host.is_safe()), again.said


@pytest.mark.fault("7 host restarted")
@pytest.mark.parametrize("state", ["cloning", "open", "promoted"])
def test_restarted_host(host: Host, vm: str, tally: Any, state: str) -> None:
    run = host.start(pause=2)
    assert wait_for(host, (state,), run), run.communicate()[0]
    podman("kill", "--signal=KILL", vm)
    host.settle(run)
    between = host.is_baseline() or host.is_result()
    podman("start", vm)
    again = host.run(ansible_port=port_of(vm))
    assert tally.add(between and again.rc == 0 and host.is_result() and host.is_safe()), again.said
