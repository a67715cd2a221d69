# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking hosts out of service and back: a command for each host, or a playbook on all of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ocrfleet.ansible import Ansible, mark
from ocrfleet.text import plain


def _command(hook: dict[str, Any], host: str, carried: dict[str, str]) -> str:
    """Why the command failed for a host, or an empty text. `carried` is in its environment."""
    argv = [word.replace("{host}", host) for word in hook["command"]]
    seconds = hook.get("timeout", 600)
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **carried},
            start_new_session=True,  # Ctrl-C is for the driver, which lets the hosts that are under way end
        )
    except OSError as error:
        return plain(f"{argv[0]}: {error}", 500)
    with process:
        try:
            output = process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            # With all that it started: who comes next must not work against it.
            os.killpg(process.pid, signal.SIGKILL)
            return plain(f"{argv[0]} did not end within {seconds:g} s, and was ended", 500)
    if process.returncode == 0:
        return ""
    said = output.strip().splitlines()
    return plain(f"{argv[0]} ended with code {process.returncode}: {said[-1] if said else 'it said nothing'}", 500)


def missing(hooks: dict[str, dict[str, Any]]) -> list[str]:
    """One sentence for each hook whose program is not there."""
    return [
        f"hooks.{name}: expected a program, found none at {hook['command'][0]}"
        for name, hook in hooks.items()
        if "command" in hook and "{host}" not in hook["command"][0] and shutil.which(hook["command"][0]) is None
    ]


def call(
    hook: dict[str, Any], hosts: list[str], ansible: Ansible, run: str, ignore: Callable[..., None]
) -> dict[str, str]:
    """Run a hook for hosts; returns why it failed, by host, for those where it did."""
    if not hosts:
        return {}
    if "playbook" in hook:
        outcomes = ansible.run(run, hook["playbook"], hosts, {}, ignore, needs_evidence=False)
        return {host: found.message or found.state for host, found in outcomes.items() if found.state != "converted"}
    carried = mark(ansible.folder, run)
    with ThreadPoolExecutor(max_workers=ansible.forks) as pool:
        problems = dict(zip(hosts, pool.map(lambda host: _command(hook, host, carried), hosts), strict=True))
    return {host: problem for host, problem in problems.items() if problem}
