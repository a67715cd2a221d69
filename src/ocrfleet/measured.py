# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's benchmark came to, in one line."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from typing import Any

from ocrfleet.text import one_line

# The level nearest to the operator's work first.
ORDER = ("documents", "server", "kernels")
VERDICTS = ("faster", "slower", "no difference found", "too few pairs", "not comparable")


def sentence(evidence: dict[str, Any]) -> str:
    """The verdicts of one level; "" where the host has no benchmark. The form of what a host says is not given."""
    try:
        return one_line(_sentence(dict(evidence.get("benchmark") or {})))
    except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError):
        return "its benchmark cannot be read"


def _sentence(levels: dict[str, Any]) -> str:
    known = [(name, levels[name]) for name in ORDER if name in levels]
    # First what is about FlashInfer, then what was measured at all, then what went wrong.
    for name, level in sorted(known, key=lambda item: _rank(item[1])):
        if level["status"] == "measured":
            return f"{name}: {_verdicts(level)}"
        return f"{name}: {str(level['status']).replace('_', ' ')}: {level.get('reason')}"
    return ""


def _rank(level: dict[str, Any]) -> int:
    measured = 1 if _remark(level) else 0
    return measured if level["status"] == "measured" else {"failed": 2}.get(level["status"], 3)


def _remark(level: dict[str, Any]) -> str:
    """Why a level's figures are not about FlashInfer."""
    if level.get("stand_in") or level.get("server"):
        return "read by a server: says nothing of FlashInfer"
    return str(level.get("note") or "")


def _verdicts(level: dict[str, Any]) -> str:
    rows = [row for row in level["comparisons"] if row.get("verdict") and row.get("speedup")]
    if not rows:
        return "no figures"
    counted = Counter(row["verdict"] for row in rows)
    told = ", ".join(f"{counted[verdict]} {verdict}" for verdict in VERDICTS if counted[verdict])
    remark = f" ({_remark(level)})" if _remark(level) else ""
    mean = statistics.geometric_mean([float(row["speedup"]) for row in rows])
    if not math.isfinite(mean):
        raise ValueError("a speed-up is no number")
    return f"{told}; mean speed-up {mean:.2f}{remark}"
