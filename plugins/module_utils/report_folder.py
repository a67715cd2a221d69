# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder that a report lies in, on a host and on the control node alike: its files and who can read them."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Mapping


class FolderError(Exception):
    """The files cannot be there; the text says why."""


def name(host: str) -> str:
    """The folder of a host among those of other hosts. Raises FolderError.

    A name that has to be changed for it gets a hash, or `vm:a` and `vm_a` would write over each other. The driver
    `ocrfleet` looks for reports by the same rule.
    """
    if host in (".", ".."):
        raise FolderError(
            f"expected a host's name that a folder can have, found {host!r}; name the host otherwise in the inventory, "
            "and keep its address in ansible_host"
        )
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", host)
    return plain if plain == host else f"{plain}-{hashlib.sha256(host.encode('utf-8')).hexdigest()[:8]}"


def _read(path: str) -> str | None:
    """The content of a file, None when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _mode(path: str) -> int | None:
    return stat.S_IMODE(os.stat(path).st_mode) if os.path.exists(path) else None


def place(
    folder: str, files: Mapping[str, str], private: bool, check_mode: bool, write: Callable[[str, str], None]
) -> dict:
    """Write what differs, and give `changed`, `written` and `diff` as a module returns them.

    `write` gets a path and a content, and puts it there in one atomic step. With `private` only the owner can read the
    folder, otherwise the owner's group, too. Raises FolderError.
    """
    folder_mode, file_mode = (0o700, 0o600) if private else (0o750, 0o640)
    for name in files:
        if os.path.basename(name) != name or name in ("", ".", ".."):
            raise FolderError(f"{name!r} is no plain file name; expected a name without folders")
    changed, written, diff = False, [], []
    try:
        if _mode(folder) != folder_mode:
            changed = True
            if not check_mode:
                os.makedirs(folder, exist_ok=True)
                os.chmod(folder, folder_mode)
        for name, content in files.items():
            path = os.path.join(folder, name)
            before = _read(path)
            if before != content:
                written.append(name)
                diff.append({"before_header": path, "after_header": path, "before": before or "", "after": content})
                if not check_mode:
                    write(path, content)
            if _mode(path) != file_mode:
                changed = True
                if not check_mode:
                    os.chmod(path, file_mode)
    except OSError as error:
        raise FolderError(f"cannot write the report to {folder}: {error.strerror} ({error.filename})") from error
    return {"changed": changed or bool(written), "written": written, "diff": diff}
