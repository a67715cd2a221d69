# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put what was measured of documents beside what was hoped for."""

from __future__ import annotations

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import hopes

DOCUMENTATION = r"""
name: beside_hopes
short_description: Put what was measured of documents beside what was hoped for
version_added: 0.1.0
author: The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - The hopes are those of the project's mission, by kind of document. They stand there whether or not documents were
    measured.
positional: _input
options:
  _input:
    description: The level C(documents) as the module benchmark returns it; empty where it is not there.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what was hoped for beside what was measured
  ansible.builtin.debug:
    msg: "{{ levels.documents | ocrfleet.gpu_stack.beside_hopes }}"
"""

RETURN = r"""
_value:
  description:
    - C(rows) with C(kind), C(gain), C(measured), C(by_hand) and C(hoped), all texts; and C(remarks), sentences that
      belong to them.
  type: dict
"""


def beside_hopes(level: dict) -> dict:
    """See DOCUMENTATION."""
    return {"rows": hopes.beside(level), "remarks": hopes.REMARKS}


class FilterModule:
    def filters(self) -> dict:
        return {"beside_hopes": beside_hopes}
