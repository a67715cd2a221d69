# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give evidence the form that CI reads: JUnit's XML."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import paired

DOCUMENTATION = r"""
name: junit
short_description: Write the checks of a host's evidence as JUnit XML
version_added: 0.1.0
author: The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - A check that was not run is C(skipped), with its reason. A failure of the run itself is one more test case.
  - Each level of a benchmark is a test case, each of its comparisons, and the gate where one is set.
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

# Whatever is not a Char of XML 1.0; a carriage return is one, and a line end to none who reads it.
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _clean(value: object) -> str:
    """XML has no room for control characters, lone surrogates and U+FFFE, not even escaped."""
    return _NOT_XML.sub(" ", str(value))


def _case(suite: ElementTree.Element, host: str, name: object, status: str, reason: object, **about: str) -> None:
    case = ElementTree.SubElement(suite, "testcase", {"classname": host, "name": _clean(name), **about})
    if status in ("failed", "not_run"):
        tag = "failure" if status == "failed" else "skipped"
        ElementTree.SubElement(case, tag, message=_clean(reason or ""))


def _benchmark(suite: ElementTree.Element, host: str, evidence: dict) -> None:
    """A case for each level, one for each of its comparisons with what was found, and one for the gate."""
    for level, measured in (evidence.get("benchmark") or {}).items():
        seconds = f"{measured.get('seconds') or 0:.2f}"
        _case(suite, host, f"benchmark, {level}", measured["status"], measured.get("reason"), time=seconds)
        for entry in measured["comparisons"]:
            status = entry.get("status") or ("measured" if entry.get("verdict") else "not_run")
            _case(suite, host, f"benchmark, {level}: {entry['name']}", status, entry.get("reason"))
            if entry.get("verdict"):
                ElementTree.SubElement(suite[-1], "system-out").text = _clean(paired.sentence(entry))
    gate = evidence.get("gate") or {}
    if gate:
        status = "failed" if gate["problems"] else "passed"
        _case(suite, host, "benchmark, the gate", status, "; ".join(gate["problems"]))


def junit(evidence: dict) -> str:
    """See DOCUMENTATION."""
    host, failure = _clean(evidence.get("host", "")), evidence.get("failure")
    suite = ElementTree.Element("testsuite", name=f"ocrfleet.gpu_stack {host}")
    for check in evidence.get("checks") or []:
        name, seconds = check.get("title", check.get("name", "")), f"{check.get('seconds') or 0:.2f}"
        _case(suite, host, name, check["status"], check.get("reason"), time=seconds)
    _benchmark(suite, host, evidence)
    _case(suite, host, "the run as a whole", "failed" if failure else "passed", failure)
    for name, path in (("tests", "testcase"), ("failures", "*/failure"), ("skipped", "*/skipped")):
        suite.set(name, str(len(suite.findall(path))))
    suite.set("errors", "0")
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


class FilterModule:
    def filters(self) -> dict:
        return {"junit": junit}
