# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the lock from the control node to the host, and run the module there."""

from __future__ import annotations

import os

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """See the module of this name for its documentation."""

    TRANSFERS_FILES = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict | None = None) -> dict:
        result = super().run(tmp, task_vars)
        args = dict(self._task.args)
        lock = args.pop("lock", None)
        if lock:
            path = os.path.expanduser(lock)
            if not os.path.isfile(path):
                raise AnsibleActionFail(f"expected a lock on the control node at {lock}, found none; correct the path")
            remote = self._connection._shell.join_path(self._make_tmp_path(), "lock.txt")
            self._transfer_file(path, remote)
            self._fixup_perms2((self._connection._shell.tmpdir, remote))
            args["lock"] = remote
        result.update(self._execute_module(module_name=self._task.action, module_args=args, task_vars=task_vars))
        self._remove_tmp_path(self._connection._shell.tmpdir)
        return result
