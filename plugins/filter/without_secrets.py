# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the secrets that a URL may carry out of what is shown and written."""

from __future__ import annotations

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import redaction

DOCUMENTATION = r"""
name: without_secrets
short_description: Take user, password and query out of the URLs in a text
version_added: 0.2.0
author: The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - For what is shown, or written into a file that others may read. A text without URLs stays as it is.
positional: _input
options:
  _input:
    description: The text.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Say where the installer comes from
  ansible.builtin.debug:
    msg: "{{ 'https://me:word@mirror.example/installer.sh?token=x' | ocrfleet.gpu_stack.without_secrets }}"
"""

RETURN = r"""
_value:
  description: The text, less what is secret in it.
  type: str
"""


class FilterModule:
    def filters(self) -> dict:
        return {"without_secrets": redaction.without_secrets}
