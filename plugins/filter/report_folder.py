# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Name the folder of a host's report on the control node."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import report_folder as folders

DOCUMENTATION = r"""
name: report_folder
short_description: Name the folder of a host's report among those of other hosts
version_added: 0.1.0
author: The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - The host's own name, where a folder can have it. Else what cannot be in it is replaced, and a hash of the name
    follows, so that no two hosts share a folder. C(.) and C(..) are refused.
positional: _input
options:
  _input:
    description: The host's name in the inventory.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show where a host's report lies
  ansible.builtin.debug:
    msg: "reports/{{ inventory_hostname | ocrfleet.gpu_stack.report_folder }}/report.html"
"""

RETURN = r"""
_value:
  description: The folder's name.
  type: str
"""


def report_folder(host: str) -> str:
    """See DOCUMENTATION."""
    try:
        return folders.name(str(host))
    except folders.FolderError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict:
        return {"report_folder": report_folder}
