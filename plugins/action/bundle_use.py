# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copy what the host has not got of the bundle, and have the module hold all of it against the manifest."""

from __future__ import annotations

import os
import shlex

from ansible.plugins.action import ActionBase
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import bundle
from ansible_collections.ocrfleet.gpu_stack.plugins.plugin_utils import placing


class ActionModule(ActionBase):
    """See the module of this name for its documentation."""

    TRANSFERS_FILES = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict | None = None) -> dict:
        result = super().run(tmp, task_vars)
        args = dict(self._task.args)
        source = args["source"] = os.path.abspath(os.path.expanduser(args["source"]))
        try:
            args["manifest"] = bundle.read(source)
            manifest = bundle.parse(args["manifest"])
        except bundle.Unusable as problem:
            return {**result, "failed": True, "problems": [str(problem)], "msg": f"{source}: {problem}"}
        # uv takes a list of folders in one variable, parted by spaces and commas.
        if any(letter in source for letter in " ,"):
            text = f"expected a path without spaces and commas, found {source!r}; move the bundle"
            return {**result, "failed": True, "problems": [text], "msg": text}

        seen = self._execute_module(module_args=args, task_vars=task_vars)
        if seen.get("failed"):
            return {**result, **seen}
        copied: list[str] = []
        wrong = seen["problems"]
        if not seen["in_place"] and (seen["wrong"] or seen["unlisted"]):
            # Nothing is sent before all of it is known to be good here.
            wrong = bundle.problems(source, manifest, args.get("expected", {}))
            copied = sorted(seen["wrong"])
            if not wrong and not self._task.check_mode:
                self._send(source, seen["folder"], copied, seen["unlisted"])
                wrong = self._execute_module(module_args=args, task_vars=task_vars)["problems"]
        if wrong:
            text = f"The bundle {source} cannot be used here; nothing was installed.\n- " + "\n- ".join(wrong)
            return {**result, "failed": True, "problems": wrong, "msg": text}
        locks = {"flashinfer": os.path.join(source, manifest["flashinfer_lock"])} if manifest["flashinfer_lock"] else {}
        present = not (copied and self._task.check_mode)
        return {
            **result,
            "changed": bool(copied),
            "folder": seen["folder"],
            "copied": copied,
            "present": present,
            "locks": locks,
            **{
                name: os.path.join(source, manifest[name]) if manifest.get(name) else ""
                for name in ("flashinfer_source", "conda_installer")
            },
            "conda_installer_checksum": bundle.installer_checksum(manifest),
        }

    def _send(self, source: str, folder: str, names: list[str], left: list[str]) -> None:
        # What an earlier bundle left there; the folder is ours.
        for name in left:
            placing.run(self, f"rm -f -- {shlex.quote(os.path.join(folder, name))}")
        placing.place(self, [(os.path.join(source, name), os.path.join(folder, name)) for name in names])
