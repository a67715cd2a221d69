# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the lock to the host, run the module there, and show what uv is at while it works.

Gigabytes take minutes. The module runs in the background of the host, and this plugin looks at uv's messages and shows
a line whenever there is something new to say.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Iterator

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.ocrfleet.gpu_stack.plugins.plugin_utils import progress

# Short work is seen at once, long work is asked after seldom.
_FIRST_POLLS = (0.5, 0.5, 1.0, 2.0, 3.0)
_LATER_POLLS = 5.0

_DOWNLOADING = re.compile(r"^ *(?:Downloading|Building) (\S+)(?: \(([\d.]+)(KiB|MiB|GiB)\))?", re.MULTILINE)
_DONE = re.compile(r"^ *(?:Downloaded|Built) (\S+)", re.MULTILINE)
_GIB = {"KiB": 1 / 1024**2, "MiB": 1 / 1024, "GiB": 1.0}


def describe(messages: str) -> str:
    """uv's messages in one line: how many downloads, how much of it is there. Only large files are announced by uv."""
    started = {
        name.split("==")[0]: float(size) * _GIB[unit] if size else 0.0
        for name, size, unit in _DOWNLOADING.findall(messages)
    }
    if not started:
        return ""
    if "\nPrepared " in messages:
        return "everything is downloaded, installing"
    done = {name.split("==")[0] for name in _DONE.findall(messages)}
    fetched = sum(size for name, size in started.items() if name in done)
    waiting = sorted((size, name) for name, size in started.items() if name not in done)
    largest = f", largest under way: {waiting[-1][1]}" if waiting else ""
    total = sum(started.values())
    return f"{len(done & set(started))} of {len(started)} large files, {fetched:.1f} of {total:.1f} GiB{largest}"


def waits() -> Iterator[float]:
    yield from _FIRST_POLLS
    while True:
        yield _LATER_POLLS


class ActionModule(ActionBase):
    """See the module of this name for its documentation."""

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict | None = None) -> dict:
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        args = dict(self._task.args)
        folder = self._make_tmp_path()
        lock = args.pop("lock", None)
        if lock:
            args["lock"] = self._bring(lock, folder)
        if self._task.check_mode or self._task.async_val:
            wrap = bool(self._task.async_val)
            result.update(self._execute_module(module_args=args, task_vars=task_vars, wrap_async=wrap))
        else:
            args["progress"] = self._connection._shell.join_path(folder, "progress.log")
            result.update(self._run_in_background(args, task_vars))
        if not self._task.async_val:
            self._remove_tmp_path(folder)
        return result

    def _bring(self, lock: str, folder: str) -> str:
        path = os.path.expanduser(lock)
        if not os.path.isfile(path):
            raise AnsibleActionFail(
                f"expected a lock on the control node at {lock}, found none; correct the path",
                result={"reason": "no_lock"},
            )
        remote = self._connection._shell.join_path(folder, "lock.txt")
        self._transfer_file(path, remote)
        self._fixup_perms2((folder, remote))
        return remote

    def _run_in_background(self, args: dict, task_vars: dict) -> dict:
        self._task.async_val = int(float(args.get("timeout", 3600))) + 600
        try:
            job = self._execute_module(module_args=args, task_vars=task_vars, wrap_async=True)
        finally:
            self._task.async_val = 0
        if "ansible_job_id" not in job:
            return job
        status = {"jid": job["ansible_job_id"], "_async_dir": os.path.dirname(job["results_file"])}
        shown = ""
        started = time.monotonic()
        for seconds in waits():
            time.sleep(seconds)
            answer = self._poll({**status, "mode": "status"}, task_vars)
            if answer.get("finished"):
                break
            shown = self._show(args["progress"], shown, task_vars, time.monotonic() - started)
        self._poll({**status, "mode": "cleanup"}, task_vars)
        for name in ("ansible_job_id", "results_file", "started", "finished", "stdout", "stderr"):
            answer.pop(name, None)
        return answer

    def _poll(self, args: dict, task_vars: dict) -> dict:
        return self._execute_module(module_name="ansible.legacy.async_status", module_args=args, task_vars=task_vars)

    def _show(self, log: str, shown: str, task_vars: dict, seconds: float) -> str:
        said = self._low_level_execute_command(f"cat {shlex.quote(log)} 2>/dev/null", sudoable=True)
        line = describe(said.get("stdout", ""))
        if line and line != shown:
            Display().display(progress.line(str(task_vars.get("inventory_hostname")), line, seconds))
        return line or shown
