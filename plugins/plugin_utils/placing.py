# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring files from the control node to where only the user that a task becomes may write."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from typing import Any

from ansible.errors import AnsibleActionFail


def run(action: Any, command: str) -> None:
    """Run a shell command on the host as the task's user. Raises AnsibleActionFail with what it said."""
    done = action._low_level_execute_command(command, sudoable=True)
    if done.get("rc"):
        said = (done.get("stderr") or done.get("stdout") or "").strip()
        raise AnsibleActionFail(
            f"expected {command!r} to work on the host, it ended with {done['rc']}: {said}; give the user that the "
            "task becomes the right to write there, or name another folder"
        )


def place(action: Any, pairs: Iterable[tuple[str, str]]) -> None:
    """Copy files, each a path here and one on the host, by way of a folder of the user that connects.

    Files are transferred as that user, and everything else is done as the one that the task becomes.
    """
    pairs = list(pairs)
    if not pairs:
        return
    folders = sorted({os.path.dirname(there) for _here, there in pairs})
    run(action, "mkdir -p -- " + " ".join(map(shlex.quote, folders)))
    passing = action._make_tmp_path()
    try:
        for here, there in pairs:
            between = os.path.join(passing, os.path.basename(there))
            action._transfer_file(here, between)
            action._fixup_perms2((passing, between))
            source, part, target = map(shlex.quote, (between, there + ".part", there))
            # One that is not root may not remove it: it goes with its folder then.
            run(
                action,
                f"cp -- {source} {part} && chmod 0644 {part} && mv -f -- {part} {target} && "
                f"{{ rm -f -- {source} 2>/dev/null || true; }}",
            )
    finally:
        action._remove_tmp_path(passing)
