# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same files on the control node: here, since a module of its own would be a process and another rendering."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import report_folder


def write(path: str, content: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


class ActionModule(ActionBase):
    """Write on the host first: what it has no room for is told before the control node shows it."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = dict(self._task.args)
        own = given.get("own_folder")
        shows = given.get("summary") is not None
        due = bool(given.get("files")) or not shows
        if due and (given.get("folder") or not own):
            result |= self._execute_module(module_args=given, task_vars=task_vars)
        else:
            result |= {"changed": False, "written": [], "diff": []}
        if shows and not result.get("failed"):
            result |= {"msg": given["summary"], "_ansible_verbose_always": True}
        if not due or not own or result.get("failed"):
            return result
        try:
            here = report_folder.place(os.path.expanduser(own), given["files"], False, self._task.check_mode, write)
        except report_folder.FolderError as error:
            raise AnsibleActionFail(f"on the control node: {error}") from error
        shown = [*result["diff"], *here["diff"]] if self._task.diff else []
        return {**result, "changed": result["changed"] or here["changed"], "diff": shown}
