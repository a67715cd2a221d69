# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put what was measured into the evidence of the run that made what was measured."""

from __future__ import annotations

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import benchmark_gate, level_status

DOCUMENTATION = r"""
name: with_measurement
short_description: Put what a benchmark measured into the evidence of the last run
version_added: 0.1.0
author: The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Levels that were measured before stay, where they are of the packages that are there now and were not measured anew.
    So does the gate, unless one was asked for now; it is judged again where its level was measured anew.
  - Evidence of other packages than were measured says nothing about them. It is left out, and a note says so.
positional: _input, measured, host
options:
  _input:
    description: The evidence of the last run; empty where there is none.
    type: dict
    required: true
  measured:
    description: What the module benchmark returned.
    type: dict
    required: true
  host:
    description: The host's name.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the evidence with what was measured
  ansible.builtin.debug:
    msg: "{{ stored | ocrfleet.gpu_stack.with_measurement(result, inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: The evidence, with C(benchmark) by level, and C(gate).
  type: dict
"""

OTHER = "the last run's evidence is of other packages than those that were measured, and is left out"


def with_measurement(stored: dict, measured: dict, host: str) -> dict:
    """See DOCUMENTATION."""
    now = next((level["fingerprint"] for level in measured["levels"].values()), "")
    levels = level_status.renewed(stored.get("benchmark"), measured["levels"], now)
    gate = benchmark_gate.renewed(stored.get("gate"), measured["gate"], now, measured=measured["levels"], levels=levels)
    if stored.get("fingerprint") != now:
        notes = {"notes": [OTHER]} if stored.get("fingerprint") else {}
        stored = {"host": host, "result": "measured", "fingerprint": now, **notes}
    return {**stored, "benchmark": levels, "gate": gate}


class FilterModule:
    def filters(self) -> dict:
        return {"with_measurement": with_measurement}
