# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give evidence the form that CI reads: JUnit's XML."""

from __future__ import annotations

from xml.etree import ElementTree

DOCUMENTATION = r"""
name: junit
short_description: Write the checks of a host's evidence as JUnit XML
version_added: 0.1.0
author: The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - A check that was not run is C(skipped), with its reason. A failure of the run itself is one more test case.
positional: _input
options:
  _input:
    description: The evidence.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the checks as JUnit XML
  ansible.builtin.debug:
    msg: "{{ evidence | ocrfleet.gpu_stack.junit }}"
"""

RETURN = r"""
_value:
  description: The XML.
  type: str
"""


def _clean(value: object) -> str:
    """XML has no room for control characters, not even escaped."""
    return "".join(sign if sign in "\n\t" or ord(sign) >= 32 else " " for sign in str(value))


def junit(evidence: dict) -> str:
    """See DOCUMENTATION."""
    checks = evidence.get("checks") or []
    host, failure = _clean(evidence.get("host", "")), evidence.get("failure")
    counted = {status: sum(check["status"] == status for check in checks) for status in ("failed", "not_run")}
    suite = ElementTree.Element(
        "testsuite",
        name=f"ocrfleet.gpu_stack {host}",
        tests=str(len(checks) + 1),
        failures=str(counted["failed"] + bool(failure)),
        skipped=str(counted["not_run"]),
        errors="0",
    )
    for check in checks:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=host,
            name=_clean(check.get("title", check.get("name", ""))),
            time=f"{check.get('seconds') or 0:.2f}",
        )
        if check["status"] != "passed":
            tag = "failure" if check["status"] == "failed" else "skipped"
            ElementTree.SubElement(case, tag, message=_clean(check.get("reason") or ""))
    case = ElementTree.SubElement(suite, "testcase", classname=host, name="the run as a whole")
    if failure:
        ElementTree.SubElement(case, "failure", message=_clean(failure))
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


class FilterModule:
    def filters(self) -> dict:
        return {"junit": junit}
