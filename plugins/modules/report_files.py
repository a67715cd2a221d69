#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the files of a report into their folder, those that differ only."""

from __future__ import annotations

DOCUMENTATION = r"""
module: report_files
short_description: Write the files of a report
version_added: 0.1.0
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Makes a folder and writes files into it, each in one atomic step. A file with its content and mode stays as it is.
  - One call for all files of a host, because every task costs its share in a fleet.
options:
  folder:
    description: Folder for the files, made when it is missing.
    type: path
    required: true
  files:
    description: Content by file name.
    type: dict
    required: true
  private:
    description: Whether only the owner can read the folder and the files. Otherwise the owner's group can, too.
    type: bool
    default: true
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
"""

EXAMPLES = r"""
- name: Write a report
  ocrfleet.gpu_stack.report_files:
    folder: ~/reports
    files:
      report.md: "{{ lookup('ansible.builtin.template', 'report.md.j2') }}"
"""

RETURN = r"""
written:
  description: Names of the files that differed, in order.
  returned: success
  type: list
  elements: str
  sample: [report.md]
"""

import os
import stat
import tempfile

from ansible.module_utils.basic import AnsibleModule


def read(path: str) -> str | None:
    """The content of a file, None when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write(module: AnsibleModule, path: str, content: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
        file.write(content)
    module.atomic_move(temporary, path)


def mode(path: str) -> int | None:
    return stat.S_IMODE(os.stat(path).st_mode) if os.path.exists(path) else None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "files": {"type": "dict", "required": True},
            "private": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    folder, files = module.params["folder"], module.params["files"]
    folder_mode, file_mode = (0o700, 0o600) if module.params["private"] else (0o750, 0o640)
    for name in files:
        if os.path.basename(name) != name or name in ("", ".", ".."):
            module.fail_json(msg=f"{name!r} is no plain file name; expected a name without folders")
    changed, written, diff = False, [], []
    try:
        if mode(folder) != folder_mode:
            changed = True
            if not module.check_mode:
                os.makedirs(folder, exist_ok=True)
                os.chmod(folder, folder_mode)
        for name, content in files.items():
            path = os.path.join(folder, name)
            before = read(path)
            if before != content:
                written.append(name)
                diff.append({"before_header": path, "after_header": path, "before": before or "", "after": content})
                if not module.check_mode:
                    write(module, path, content)
            if mode(path) != file_mode:
                changed = True
                if not module.check_mode:
                    os.chmod(path, file_mode)
    except OSError as error:
        module.fail_json(msg=f"cannot write the report to {folder}: {error.strerror} ({error.filename})")
    module.exit_json(changed=changed or bool(written), written=written, diff=diff)


if __name__ == "__main__":
    main()
