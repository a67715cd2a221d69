# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell the module env_transaction which run it works for.

Only the control node knows whether a run that still owns an environment is alive. So this plugin describes the
`ansible-playbook` process, and when the module names another run of this control node as the owner, it looks.
"""

from __future__ import annotations

import getpass
import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import journal

MODULE = "ocrfleet.gpu_stack.env_transaction"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def started(pid: int) -> str:
    """When a process started, in clock ticks since boot, or "" when there is no such process (any more).

    Together with the process number this names one process; the number alone is used again.
    """
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in "ZX":  # a zombie works no more
        return ""
    return fields[19]


def controller() -> str:
    """What names this control node: containers and cloned machines may share all but one of these."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{_read('/etc/machine-id')}/{namespace}"


def run_process() -> int:
    """The process of the run: tasks work in children of it."""
    parent = multiprocessing.parent_process()
    return (parent.pid if parent else None) or os.getpid()


def orphaned() -> bool:
    """Whether the run that this task belongs to was killed, which its tasks outlive."""
    parent = multiprocessing.parent_process()
    return parent is not None and os.getppid() != parent.pid


def gone(owner: dict[str, Any]) -> bool:
    """Whether a run of this control node has ended."""
    return owner.get("controller") == controller() and started(int(owner.get("pid") or 0)) != owner.get("started")


def met_dead(found: dict[str, Any]) -> dict[str, Any] | None:
    """The owner that a module refused to push aside, when that one has ended."""
    contested = found.get("contested") if found.get("failed") else None
    return contested if contested and gone(contested) else None


class ActionModule(ActionBase):
    """Runs the module, and again whenever the owner it met turned out to be dead."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        pid = run_process()
        owner = {
            "controller": controller(),
            "boot": _read("/proc/sys/kernel/random/boot_id"),
            "pid": pid,
            "started": started(pid),
            "host": str(task_vars.get("inventory_hostname", "")),
            "user": getpass.getuser(),
            "label": " ".join(
                [Path(sys.argv[0]).name, *[word for word in sys.argv[1:] if word.endswith((".yml", ".yaml"))]]
            ),
            "since": time.time(),
        }
        if orphaned():
            # Its process has no start any more: what it began, no later run could tell from a living run's work.
            raise AnsibleActionFail("the ansible-playbook run of this task has ended, so nothing was begun for it")
        arguments = {**self._task.args, "owner": owner}
        found = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        # More than once: while this run waited for the lock, another one that has ended since may have taken over.
        while (contested := met_dead(found)) and journal.key(contested) != arguments.get("owner_gone"):
            arguments["owner_gone"] = journal.key(contested)
            found = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        result.update(found)
        return result
