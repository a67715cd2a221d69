# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold the evidence of an offline run against that of an online run: same_report.py ONLINE OFFLINE

Left out is what two runs of one kind differ in too (times, ids, and where things lie); the notes, in which the
planner of the online run says what the index did not have; and the fingerprint: a bundle holds the wheel for the oldest
C library that is supported, where an index may have another one of the same version for newer ones.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

DIFFERS = ("finished", "fingerprint", "spec_hash", "timings", "transaction", "notes")


def comparable(path: Path) -> dict:
    """What must be the same. `required_by` is an answer of the resolver, which an exact lock does without."""
    text = path.read_text(encoding="utf-8")
    prefix = json.loads(text)["environment"]["path"]
    evidence = json.loads(text.replace(prefix, "ENVIRONMENT").replace(str(Path(prefix).parents[1]), "STACK"))
    kept = {name: value for name, value in evidence.items() if name not in DIFFERS}
    # Why a need cannot be had, which the operator accepted, is the index's word.
    kept["needs"] = [(row["requirement"], row["status"]) for row in kept.get("needs", [])]
    kept["plan"] = [{"name": row["name"], "version": row["version"]} for row in kept["plan"]]
    for check in kept["checks"]:
        check.pop("seconds", None)
    return kept


def main(online: Path, offline: Path) -> int:
    left, right = comparable(online), comparable(offline)
    unequal = [name for name in sorted(left.keys() | right.keys()) if left.get(name) != right.get(name)]
    for name in unequal:
        sys.stderr.write(f"{name}:\n  online  {json.dumps(left.get(name))}\n  offline {json.dumps(right.get(name))}\n")
    if not left["lock"]:
        sys.stderr.write("the online run's evidence holds no lock: it installed nothing\n")
    if not unequal and left["lock"]:
        said = f"{len(left['plan'])} packages added, {len(left['checks'])} checks"
        sys.stdout.write(f"same lock and same report: {said}\n")
    return 1 if unequal or not left["lock"] else 0


if __name__ == "__main__":
    raise SystemExit(main(*map(Path, sys.argv[1:3])))
