#!/usr/bin/env python3
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write bills of materials (CycloneDX JSON): sbom.py FOLDER

One of the control node's tools as they are installed, one of each baseline that roles install, and one per host of what
was added there, from the lock in its report.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


# cyclonedx-py's check of its own output takes half a minute for each bill.
COMMON = ("--output-reproducible", "--sv", "1.6", "--of", "JSON", "--no-validate")


def locks() -> dict[str, str]:
    """The hashed requirements texts that hosts are installed from, by the name of their bill."""
    found = {}
    for path in sorted((ROOT / "roles/olmocr/files/locks").glob("*.txt")):
        found[f"baseline-{path.stem}"] = path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "reports").glob("*/evidence.json")):
        lock = json.loads(path.read_text(encoding="utf-8")).get("lock")
        if lock:
            found[f"added-{path.parent.name}"] = lock
    return found


def cyclonedx(*arguments: str | Path, text: str = "") -> dict:
    """The bill that cyclonedx-py makes."""
    command = ["cyclonedx-py", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stderr}\nsbom: cyclonedx-py {arguments[0]} ended with {done.returncode}")
    return json.loads(done.stdout)


def of_environment(python: str) -> dict:
    """What is installed beside an interpreter, with licences and who needs whom."""
    return cyclonedx("environment", *COMMON, python)


def of_lock(requirements: str) -> dict:
    """What a hashed requirements text names, with the hash of each file. Every package must have one."""
    bill = cyclonedx("requirements", *COMMON, "-", text=requirements)
    for part in bill["components"]:
        part.pop("description")  # the line of the requirements file once more, hashes and all
        if not any(reference.get("hashes") for reference in part.get("externalReferences", [])):
            raise SystemExit(f"sbom: expected a hash for {part['name']} in the lock, found none")
    return bill


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: sbom.py FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    bills = {"control-node": of_environment(sys.executable)}
    bills |= {name: of_lock(text) for name, text in locks().items()}
    for name, bill in bills.items():
        path = folder / f"{name}.cdx.json"
        path.write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
        print(f"{path}: {len(bill['components'])} packages")


if __name__ == "__main__":
    main()
