# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold what a benchmark measured against what the operator asked for."""

from __future__ import annotations

import math
import statistics

# The level nearest to the operator's work counts, where it was measured.
ORDER = ("documents", "server", "kernels")


def problems(levels: dict[str, dict], min_speedup: float, max_slowdown: float) -> list[str]:
    """One sentence for each demand that is not met. 0 asks for no speed-up, 1 allows any slow-down."""
    if min_speedup <= 0 and max_slowdown >= 1:
        return []
    for name in ORDER:
        entries = [entry for entry in levels.get(name, {}).get("comparisons", []) if entry.get("speedup")]
        if entries:
            break
    else:
        return ["a gate is set (flashinfer_min_speedup or flashinfer_max_slowdown), and no level could be measured"]
    found = []
    mean = math.exp(statistics.fmean(math.log(entry["speedup"]) for entry in entries))
    if mean < min_speedup:
        found.append(
            f"expected a speed-up of at least {min_speedup:g} at the level {name}, measured {mean:.3f} "
            f"(mean of {len(entries)} comparisons)"
        )
    for entry in entries:
        if entry["verdict"] == "slower" and entry["speedup"] < 1 - max_slowdown:
            found.append(
                f"expected a slow-down of at most {max_slowdown:.1%}, measured {1 - entry['speedup']:.1%} "
                f"at the level {name}: {entry['name']}"
            )
    return found
