# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draw the speed-ups of a benchmark."""

from __future__ import annotations

import io
from typing import Any

DOCUMENTATION = r"""
name: speedup_plot
short_description: Draw the speed-ups of one benchmark level as inline SVG
version_added: 0.1.0
author: The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Each comparison as a point with its interval. Empty where nothing was measured.
  - Where matplotlib is missing on the control node, a paragraph that says so.
positional: _input
options:
  _input:
    description: The comparisons of one level, as the module benchmark returns them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Write a plot
  ansible.builtin.copy:
    content: "{{ levels.documents.comparisons | ocrfleet.gpu_stack.speedup_plot }}"
    dest: documents.svg
    mode: "0644"
"""

RETURN = r"""
_value:
  description: The SVG element, or a paragraph of HTML.
  type: str
"""


MISSING = '<p class="quiet">No plot: matplotlib is not installed on the control node.</p>'


def speedup_plot(comparisons: list[dict]) -> str:
    """The speed-ups of one level with their intervals as inline SVG; empty where nothing was measured.

    The same figures give the same bytes. Where matplotlib is missing a sentence says so, beside the page's table.
    """
    entries = [entry for entry in comparisons if entry.get("speedup")]
    if not entries:
        return ""
    try:
        import matplotlib
    except ImportError:
        return MISSING
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
        return {"speedup_plot": speedup_plot}
