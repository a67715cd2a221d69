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
  - Only the owner can read the folder and the files on the host.
  - One call for all files of a host and for what is said of them, because every task costs its share in a fleet.
options:
  folder:
    description: Folder on the host for the files, made when it is missing. Without it none is written there.
    type: path
  files:
    description: Content by file name. Where there is none and O(summary) is given, nothing is written.
    type: dict
    required: true
  own_folder:
    description:
      - Folder on the control node that gets the same files, made when it is missing. None does by default.
      - There the owner's group can read them, too.
    type: path
  summary:
    description: Lines that are shown in the terminal when the files are written, as the message of this task.
    type: list
    elements: str
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
  action:
    description: O(own_folder) is written, and O(summary) shown, by an action plugin on the control node.
    support: full
"""

EXAMPLES = r"""
- name: Write a report on the host and on the control node
  ocrfleet.gpu_stack.report_files:
    folder: ~/reports
    own_folder: reports/{{ inventory_hostname }}
    files:
      report.md: "{{ lookup('ansible.builtin.template', 'report.md.j2') }}"
"""

RETURN = r"""
written:
  description: Names of the files on the host that differed, in order.
  returned: success
  type: list
  elements: str
  sample: [report.md]
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import report_folder


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path"},
            "files": {"type": "dict", "required": True},
            "own_folder": {"type": "path"},  # the action plugin's, like the next
            "summary": {"type": "list", "elements": "str"},
        },
        required_one_of=[("folder", "own_folder")],
        supports_check_mode=True,
    )

    def write(path: str, content: str) -> None:
        descriptor, temporary = tempfile.mkstemp(dir=module.tmpdir)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(content)
        module.atomic_move(temporary, path)

    try:
        found = report_folder.place(module.params["folder"], module.params["files"], True, module.check_mode, write)
    except report_folder.FolderError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=found["changed"], written=found["written"], diff=found["diff"] if module._diff else [])


if __name__ == "__main__":
    main()
