# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give evidence other forms: plots for the page, and JUnit's XML for CI."""

from __future__ import annotations

import io
from typing import Any
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


def speedup_plot(comparisons: list[dict]) -> str:
    """The speed-ups of one level with their intervals as inline SVG; empty where nothing was measured or drawn.

    The same figures give the same bytes. Where matplotlib is missing the page's table has to do.
    """
    entries = [entry for entry in comparisons if entry.get("speedup")]
    if not entries:
        return ""
    try:
        import matplotlib
    except ImportError:
        return ""
    matplotlib.use("svg")
    from matplotlib.figure import Figure

    grey = "#7d8590"  # read on light and on dark pages
    settings: Any = {
        "svg.hashsalt": "ocrfleet",
        "svg.fonttype": "none",
        "text.parse_math": False,
        "text.color": grey,
        "axes.edgecolor": grey,
        "axes.labelcolor": grey,
        "xtick.color": grey,
        "ytick.color": grey,
        "font.size": 8,
    }
    colours = {"faster": "#2da44e", "slower": "#d1242f"}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.2, 0.7 + 0.28 * len(entries)), layout="constrained")
        axes = figure.add_subplot()
        for row, entry in enumerate(entries):
            colour = colours.get(entry.get("verdict") or "", grey)
            if entry.get("low"):
                axes.plot([entry["low"], entry["high"]], [row, row], color=colour, linewidth=2)
            axes.plot([entry["speedup"]], [row], "o", color=colour, markersize=5)
        axes.axvline(1, color=grey, linewidth=0.8, linestyle=":")
        axes.set_yticks(range(len(entries)), [str(entry["name"])[:40] for entry in entries])
        axes.invert_yaxis()
        axes.set_xlabel("speed-up over the baseline, with its interval")
        axes.spines[["top", "right"]].set_visible(False)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    return svg[svg.index("<svg") :]


class FilterModule:
    def filters(self) -> dict:
        return {"junit": junit, "speedup_plot": speedup_plot}
