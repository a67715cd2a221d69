#!/usr/bin/env python3
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write bills of materials (CycloneDX JSON): sbom.py FOLDER

One of the control node's tools as they are installed, one of each baseline that the roles install, and for each host in
reports/ one of what its last run added to its baseline, by the lock in its evidence. Hosts without one are named, with
the reason.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ocrfleet import evidence

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "reports"


# cyclonedx-py's check of its own output takes half a minute for each bill.
COMMON = ("--output-reproducible", "--sv", "1.6", "--of", "JSON", "--no-validate")


def baselines() -> dict[str, str]:
    """The locks that the roles install a baseline from, by the name of the bill."""
    files = sorted((ROOT / "roles/olmocr/files/locks").glob("*.txt"))
    return {f"baseline-{file.stem}": file.read_text(encoding="utf-8") for file in files}


def added(reports: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The locks of what was added to hosts, by the name of the bill; and why a host has none, by its folder."""
    found, without = {}, {}
    for file in sorted(reports.glob("*/evidence.json")):
        host = file.parent.name
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            without[host] = f"its evidence cannot be read: {error}"
            continue
        if reason := why_none(told):
            without[host] = reason
        else:
            found[f"added-{host}"] = told["lock"]
    return found, without


def why_none(told: Any) -> str:
    """Why evidence makes no bill; an empty text where it does. A host tells its evidence itself."""
    if not isinstance(told, dict):
        return "what it told is no evidence"
    if not evidence.is_proof(told):
        return f"its last run ended as {told.get('result')}, so nothing tells what it holds"
    lock = told.get("lock", "")
    if lock == "":
        return "its last run installed nothing, so its evidence holds no lock; what it has is of an earlier run"
    if not isinstance(lock, str) or not evidence.is_lock(lock):
        return "the lock in its evidence has lines that are no NAME==VERSION or hash; look at the host"
    return ""


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


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        raise SystemExit("usage: sbom.py FOLDER")
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    locks, without = added(REPORTS)
    bills = {"control-node": of_environment(sys.executable)}
    bills |= {name: of_lock(text) for name, text in {**baselines(), **locks}.items()}
    for stale in folder.glob("*.cdx.json"):
        stale.unlink()
    for name, bill in bills.items():
        path = folder / f"{name}.cdx.json"
        path.write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
        print(f"{path}: {len(bill['components'])} packages")
    for host, reason in without.items():
        print(f"{host} has no bill: {reason}")


if __name__ == "__main__":
    main(sys.argv[1:])
