#!/usr/bin/env python3
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say whether a host is what the site playbook promises. Runs there, with the environment's own Python.

It shares no code with the collection on purpose: what the collection gets wrong must not be wrong here too.
The one argument is JSON, `oracle_expected` in molecule/inventory/group_vars/all.yml. Exits 1 with every problem named.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Hashing every byte of 10 GB takes minutes; beyond this size a file's length has to do.
HASHED_UP_TO = 2_000_000


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, list[str]]:
    """All versions found of each distribution: two of one are a damaged environment."""
    found: dict[str, list[str]] = {}
    for distribution in importlib.metadata.distributions(path=[site_packages()]):
        found.setdefault(canonical(distribution.metadata["Name"]), []).append(distribution.version)
    return found


def site_packages() -> str:
    return str(Path(sys.prefix) / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")


def check_prefix(expected: dict[str, Any]) -> Iterator[str]:
    if Path(sys.prefix) != Path(expected["prefix"]):
        yield f"the environment's Python says its prefix is {sys.prefix}, not {expected['prefix']}"
    script = Path(sys.prefix, "bin/vllm")
    # A script that names another prefix works only until that one is removed.
    if script.is_file() and str(sys.prefix) not in script.read_text().partition("import")[0]:
        yield f"{script} starts another Python: {script.read_text().splitlines()[:2]}"


def check_torch(expected: dict[str, Any]) -> Iterator[str]:
    import torch  # type: ignore[import-not-found]

    found = {
        "metadata": importlib.metadata.version("torch"),
        "version": torch.__version__,
        "cuda": torch.version.cuda,
    }
    if found != expected["torch"]:
        yield f"torch is {found}, not {expected['torch']}"


def check_versions(expected: dict[str, Any]) -> Iterator[str]:
    found = installed()
    for name, versions in found.items():
        if len(versions) > 1:
            yield f"{name} is there more than once: {versions}"
        if name.endswith("-cu13") or (name.startswith("cuda-") and versions[0].startswith("13.")):
            yield f"{name} {versions[0]} is a part of CUDA 13"
    for name, version in expected["versions"].items():
        if found.get(name) != [version]:
            yield f"{name} is {found.get(name, 'not installed')}, not {version}"
    for name in expected["absent"]:
        if name in found:
            yield f"{name} {found[name]} is installed, although it cannot match"


def check_records(expected: dict[str, Any]) -> Iterator[str]:
    site = Path(site_packages())
    folders = sorted(site.glob("*.dist-info"))
    if len(folders) < 100:
        yield f"only {len(folders)} packages in {site}"
    for folder in folders:
        if not (folder / "INSTALLER").is_file():
            yield f"{folder.name} has no INSTALLER: its installation did not end"
        if not (folder / "RECORD").is_file():
            yield f"{folder.name} has no RECORD"
            continue
        with (folder / "RECORD").open(newline="") as lines:
            for path, digest, size in csv.reader(lines):
                file = site / path
                if not file.is_file():
                    if not path.endswith(".pyc"):
                        yield f"{folder.name}: {path} is missing"
                elif size and file.stat().st_size != int(size):
                    yield f"{folder.name}: {path} has {file.stat().st_size} bytes, not {size}"
                elif digest.startswith("sha256=") and int(size or 0) <= HASHED_UP_TO:
                    seen = base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).decode().rstrip("=")
                    if seen != digest.partition("=")[2]:
                        yield f"{folder.name}: {path} has other contents than recorded"


def check_imports(expected: dict[str, Any]) -> Iterator[str]:
    for name in expected["importable"]:
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"], capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            yield f"import {name}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"


def check_programs(expected: dict[str, Any]) -> Iterator[str]:
    for name in expected["programs"]:
        if not shutil.which(name):
            yield f"the program {name} is not there"


def check_baseline(expected: dict[str, Any]) -> Iterator[str]:
    """The frozen list in the owner's home is what is there now, less what was added."""
    lists = sorted(Path.home().glob("olmocr-baseline-*.txt"))
    if not lists:
        yield f"no olmocr-baseline-YYYYMMDD.txt in {Path.home()}"
        return
    if not re.fullmatch(r"olmocr-baseline-\d{8}(-\d+)?\.txt", lists[-1].name):
        yield f"the baseline's name is {lists[-1].name}"
    baseline = dict(
        (canonical(name), version)
        for name, _, version in (line.partition("==") for line in lists[-1].read_text().split("\n"))
        if version and not name.startswith("#")
    )
    now = {name: versions[0] for name, versions in installed().items()}
    gone = baseline.items() - now.items()
    if gone:
        yield f"no longer as frozen in {lists[-1].name}: {sorted(gone)}"
    added = sorted(now.keys() - baseline.keys())
    print(f"  added since {lists[-1].name}: {', '.join(f'{name} {now[name]}' for name in added) or 'nothing'}")
    if not set(expected["added"]) <= set(added):
        yield f"added since the freeze: {added}, and not {sorted(set(expected['added']) - set(added))}"


def check_evidence(expected: dict[str, Any]) -> Iterator[str]:
    """The evidence on the host is private to its owner, and claims nothing that cannot have been seen here."""
    file = Path(expected["evidence"])
    if not file.is_file():
        yield f"no evidence: {file} does not exist"
        return
    if stat.S_IMODE(file.stat().st_mode) & 0o077 or file.stat().st_uid != os.getuid():
        yield f"{file} is open to others than its owner: {file.stat()}"
    evidence = json.loads(file.read_text())
    if evidence["result"] != "verified":
        yield f"the evidence's result is {evidence['result']}"
    if evidence["versions"]["torch"] != expected["torch"]["version"]:
        yield f"the evidence says torch {evidence['versions']['torch']}"
    statuses = {check["name"]: check["status"] for check in evidence["checks"]}
    if not Path("/proc/driver/nvidia").exists() and statuses.get("cuda") != "not_run":
        yield f"there is no GPU here, yet the evidence says of CUDA: {statuses.get('cuda')}"
    for check in evidence["checks"]:
        if check["status"] not in ("passed", "not_run") or (check["status"] == "not_run" and not check["reason"]):
            yield f"the evidence says of {check['name']}: {check['status']} ({check['reason'] or 'no reason'})"
    missing = {"torch", "cuda", "olmocr", "flashinfer", "show_config", "document"} - statuses.keys()
    if missing:
        yield f"the evidence has no word on {sorted(missing)}, only on {sorted(statuses)}"


def check_method(expected: dict[str, Any]) -> Iterator[str]:
    """The tree says by which method FlashInfer came, the evidence what was tried before and why that did not do."""
    record = json.loads(Path(expected["prefix"], "etc/ocrfleet/flashinfer.json").read_text())
    if (record["method"], record["version"]) != (expected["method"], expected["versions"]["flashinfer-python"]):
        yield f"FlashInfer's record in the tree is {record}"
    evidence = json.loads(Path(expected["evidence"]).read_text())
    tried = evidence["attempts"]
    # A run that installs nothing begins with the method that led to what is there.
    wanted = expected["tried"] if evidence["plan"] or not expected["tried"] else [[expected["method"], True, ""]]
    if [[row["method"], row["verified"]] for row in tried] != [row[:2] for row in wanted]:
        yield f"expected the attempts {wanted}, the evidence has {tried}"
    for row, (_method, _verified, said) in zip(tried, wanted):
        if said not in row.get("said", ""):
            yield f"the attempt {row} does not say {said!r}"


def check_needs(expected: dict[str, Any]) -> Iterator[str]:
    """Only the method that takes FlashInfer alone tells of each declared need whether it is met."""
    told = {row["name"]: row["status"] for row in json.loads(Path(expected["evidence"]).read_text())["needs"]}
    if told != expected["needs"]:
        yield f"expected the needs {expected['needs']}, the evidence has {told}"


def check_wheel(expected: dict[str, Any]) -> Iterator[str]:
    """What was built from source is what is installed, file by file; nothing else claims to have been built."""
    record = json.loads(Path(expected["prefix"], "etc/ocrfleet/flashinfer.json").read_text())
    evidence = json.loads(Path(expected["evidence"]).read_text())
    sums = {record.get("wheel_sha256"), evidence["wheel"].get("sha256")}
    if expected["method"] != "source":
        if sums != {None}:
            yield f"the method is {expected['method']}, and a wheel is said to have been built: {sums}"
        return
    wheels = sorted(Path(expected["prefix"]).parents[1].glob("wheelhouse/*/*.whl"))
    if len(wheels) != 1 or sums != {hashlib.sha256(wheels[0].read_bytes()).hexdigest()}:
        yield f"expected one wheel with the checksum that record and evidence tell, {sums}; found {wheels}"
        return
    if not str(evidence["wheel"].get("torch", "")).startswith(expected["torch"]["version"].partition("+")[0]):
        yield f"the wheel's provenance does not tell what it was built against: {evidence['wheel']}"
    with zipfile.ZipFile(wheels[0]) as wheel:
        for name in wheel.namelist():
            path = Path(site_packages(), name)
            if name.endswith("/RECORD") or ".data/" in name or name.endswith("/"):
                continue
            if not path.is_file() or path.read_bytes() != wheel.read(name):
                yield f"{path} is not the file of {wheels[0]}"


CHECKS = (
    check_prefix,
    check_torch,
    check_versions,
    check_records,
    check_imports,
    check_programs,
    check_baseline,
    check_evidence,
    check_method,
    check_needs,
    check_wheel,
)


def main() -> int:
    expected = json.loads(sys.argv[1])
    problems = []
    for check in CHECKS:
        started = time.monotonic()
        try:
            found = list(check(expected))
        except Exception as error:  # a check that breaks is a finding, and the others still say theirs
            found = [f"{check.__name__} broke: {error!r}"]
        print(f"{check.__name__}: {len(found)} problems, {time.monotonic() - started:.1f} s")
        problems += found
    print("\n".join(problems[:50]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
