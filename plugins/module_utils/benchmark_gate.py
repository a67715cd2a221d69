# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold what a benchmark measured against what the operator asked for.

A demand holds only where the whole interval of what was measured meets it: a mean alone may be noise. It is held
against one level, the nearest to the operator's work that was asked for. Where that cannot run, no other comes in: its
figures are of something else. Kernels never do, neither way: they are FlashInfer's beside what vllm uses without it,
called by themselves, and on most GPUs vllm calls FlashInfer's not at all. A wrong result of theirs is a failure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import paired

# The levels that tell what vllm does, the one nearest to the operator's work first.
TELLING = ("documents", "server")
NARROW = "a higher benchmark_repeats narrows the interval"


def is_set(min_speedup: float, max_slowdown: float) -> bool:
    """0 asks for no speed-up, 1 allows any slow-down. Raises ValueError for what is no number, which all would meet."""
    for name, bound in (("min_speedup", min_speedup), ("max_slowdown", max_slowdown)):
        if math.isnan(bound):
            raise ValueError(f"{name}: expected a number, found {bound}")
    return min_speedup > 0 or max_slowdown < 1


def problems(levels: dict[str, dict], min_speedup: float, max_slowdown: float) -> list[str]:
    """One sentence for each failure of a level, and for each demand that is not met."""
    return _problems(levels, decisive(levels), min_speedup, max_slowdown)


def decisive(levels: dict[str, dict]) -> str:
    """The level that the gate is judged on; "" where none was asked for."""
    return next((name for name in TELLING if name in levels), "")


def _problems(levels: dict[str, dict], name: str, min_speedup: float, max_slowdown: float) -> list[str]:
    found = list(_failures(levels))
    if found or not is_set(min_speedup, max_slowdown):
        return found
    if not name:
        return [
            "expected documents or server among benchmark_levels to hold flashinfer_min_speedup and "
            f"flashinfer_max_slowdown against, found {', '.join(levels) or 'none'}, which tells nothing of what vllm "
            "uses; add one, or set the two back to 0 and 1"
        ]
    level = levels.get(name, {})
    if level.get("status") != "measured":
        return [
            f"expected the level {name} to be measured, found that it was not run: {level.get('reason')}; mend that, "
            "or leave it out of benchmark_levels"
        ]
    return list(_misses(name, level, min_speedup, max_slowdown))


def judged(levels: dict[str, dict], min_speedup: float, max_slowdown: float) -> dict:
    """The gate as the evidence holds it: what was asked for, on what it was judged, and what of it is not met."""
    return _judged(levels, decisive(levels), min_speedup, max_slowdown) if is_set(min_speedup, max_slowdown) else {}


def _judged(levels: dict[str, dict], name: str, min_speedup: float, max_slowdown: float) -> dict:
    return {
        "min_speedup": min_speedup,
        "max_slowdown": max_slowdown,
        "problems": _problems(levels, name, min_speedup, max_slowdown),
        "level": name,
        "finished": levels.get(name, {}).get("finished", ""),
        "fingerprint": next((level["fingerprint"] for level in levels.values() if "fingerprint" in level), ""),
    }


def renewed(before: dict | None, now: dict, fingerprint: str, measured: dict, levels: dict) -> dict:
    """The gate of now, or where none was asked for the one before, if it is of the packages with this fingerprint.

    `measured` are the levels of this run, `levels` those that the evidence will hold. What was asked for before is
    judged again on them, so that no gate is said to be met beside figures that contradict it. One that was missed stays
    so until its own level is measured anew: another one's figures do not meet it.
    """
    if now or not before or before.get("fingerprint") != fingerprint:
        return now
    if before["problems"] and measured.get(before["level"], {}).get("status", "not_run") == "not_run":
        return before
    return _judged(levels, before["level"], before["min_speedup"], before["max_slowdown"])


def _failures(levels: dict[str, dict]) -> Iterator[str]:
    for name, level in levels.items():
        failed = [entry for entry in level.get("comparisons", []) if entry.get("status") == "failed"]
        told = [f"{entry['name']}: {entry.get('reason')}" for entry in failed]
        if level.get("status") == "failed" and not told:
            told = [str(level.get("reason"))]
        if told:
            more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
            yield f"expected the level {name} to be measured, found that it failed: {told[0]}{more}; mend that first"


def _misses(name: str, level: dict, min_speedup: float, max_slowdown: float) -> Iterator[str]:
    served = level.get("stand_in") or level.get("server")
    if served:
        yield (
            f"expected documents that the environment's own vllm reads, found them sent to {served}, whose speed says "
            "nothing of this FlashInfer; leave benchmark_server empty, or documents out of benchmark_levels"
        )
        return
    entries = [entry for entry in level.get("comparisons", []) if entry.get("status") != "not_run"]
    few = [entry for entry in entries if entry.get("low") is None]
    if few or not entries:
        what = f"{few[0].get('pairs', 0)} pairs for {few[0]['name']}" if few else "no comparison"
        yield (
            f"expected at least {paired.LEAST_PAIRS} pairs a comparison at the level {name}, found {what}; set "
            f"benchmark_repeats to at least {paired.LEAST_PAIRS}, and raise benchmark_timeout where it cut them short"
        )
        return
    for entry in entries:
        unread = entry.get("failed_pages") or {}
        if unread.get("candidate", 0) > unread.get("baseline", 0):
            yield (
                f"expected FlashInfer to leave no more pages unread than the baseline, found {unread['candidate']} "
                f"against {unread['baseline']} for {entry['name']}: its speed is that of the others; measure again"
            )
    # Together the intervals hold with 95 %, and so does the mean of their ends for the mean of the true ratios.
    speedup, low = (math.exp(statistics.fmean(math.log(entry[key]) for entry in entries)) for key in ("speedup", "low"))
    if min_speedup > 0 and level.get("note"):
        yield (
            f"expected figures about FlashInfer to hold flashinfer_min_speedup against at the level {name}, found that "
            f"{level['note']}; leave that level out of benchmark_levels, or set flashinfer_min_speedup back to 0"
        )
    elif low < min_speedup:
        yield (
            f"expected a mean speed-up of certainly {min_speedup:g} or more at the level {name}, found {speedup:.3f} "
            f"and certainly only {low:.3f} (over {len(entries)} comparisons); {NARROW}, or lower flashinfer_min_speedup"
        )
    for entry in entries:
        if entry["low"] < 1 - max_slowdown:
            yield (
                f"expected a slow-down of certainly {max_slowdown:.1%} or less, found that {entry['name']} at the "
                f"level {name} may be slower by {1 - entry['low']:.1%} (speed-up {entry['speedup']:.3f}, "
                f"{entry['low']:.3f} to {entry['high']:.3f}); {NARROW}, or raise flashinfer_max_slowdown"
            )
