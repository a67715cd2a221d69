# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of a level of the benchmark, and whether what it says is of the packages that are there now."""

from __future__ import annotations


def settled(level: dict) -> dict:
    """The level with a `status` in each entry. A comparison that has a reason instead of figures failed."""
    entries = [
        {"status": "failed" if entry.get("reason") else "measured", **entry} for entry in level.get("comparisons", [])
    ]
    broken = [f"{entry['name']}: {entry['reason']}" for entry in entries if entry["status"] == "failed"]
    level = {**level, "comparisons": entries}
    if broken and level["status"] == "measured":
        level.update(status="failed", reason=broken[0])
    return level


def of_packages(levels: dict | None, fingerprint: str) -> dict:
    """The levels that were measured on packages with this fingerprint; others say nothing of these."""
    return {name: level for name, level in (levels or {}).items() if level.get("fingerprint") == fingerprint}


def renewed(before: dict | None, now: dict, fingerprint: str) -> dict:
    """The levels of now over those before of the same packages. What cannot run now leaves what was found before."""
    earlier = of_packages(before, fingerprint)
    ran = {name for name, level in earlier.items() if level.get("status") != "not_run"}
    return {
        **earlier,
        **{name: level for name, level in now.items() if level["status"] != "not_run" or name not in ran},
    }
