# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an environment is, told without any code of the collection: the judge must not share the defendant's bugs.

Run as a program it watches an environment's path, sample after sample, until its standard input ends, and prints how
many samples it took and each state that was neither of the two allowed ones.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import select
import stat
import sys


def tree(root: str, times: bool = True) -> dict[str, list[object]]:
    """Every entry of a tree but Python's caches; with `times` the mtimes too."""
    found: dict[str, list[object]] = {}
    for folder, folders, files in os.walk(root):
        if "__pycache__" in folders:
            folders.remove("__pycache__")
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            regular = stat.S_ISREG(status.st_mode)
            entry: list[object] = [status.st_mode, status.st_uid, status.st_gid, status.st_size if regular else 0]
            entry.append(os.readlink(path) if stat.S_ISLNK(status.st_mode) else "")
            if times:
                entry.append(status.st_mtime_ns)
            if regular:
                with open(path, "rb") as file:
                    entry.append(hashlib.sha256(file.read()).hexdigest())
            found[os.path.relpath(path, root)] = entry
    return found


def complete(root: str) -> list[str]:
    """What the RECORD files promise and the tree does not hold, and metadata without a RECORD."""
    missing = []
    for folder, _, files in os.walk(root):
        # Packages that others carry inside them (setuptools does) have RECORDs of another place.
        if not folder.endswith(".dist-info") or os.path.basename(os.path.dirname(folder)) != "site-packages":
            continue
        if "RECORD" not in files:
            missing.append(folder)
            continue
        with open(os.path.join(folder, "RECORD"), newline="") as file:
            for row in csv.reader(file):
                path = os.path.join(os.path.dirname(folder), row[0])
                if not os.path.exists(path) or (row[2] and os.path.getsize(path) != int(row[2])):
                    missing.append(path)
    return missing


def signature(root: str) -> str:
    """The versions that a tree holds, and whether all their files are there."""
    names = []
    for folder, _, _ in os.walk(root):
        if folder.endswith(".dist-info"):
            names.append(os.path.basename(folder))
    broken = complete(root)
    return " ".join(sorted(names)) + (f" BROKEN {len(broken)}" if broken or not names else "")


def sample(path: str) -> str | None:
    """The signature of what lies at `path`; None when it was exchanged while being read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        return f"BROKEN: {error}"
    try:
        inode = os.fstat(descriptor).st_ino
        try:
            # Through the descriptor, so that an exchange half-way does not mix two trees.
            seen = signature(f"/proc/self/fd/{descriptor}/")
        except OSError as error:
            seen = f"BROKEN: {error}"
        try:
            same = os.stat(path).st_ino == inode
        except OSError as error:
            return f"BROKEN: {error}"
        return seen if same else None
    finally:
        os.close(descriptor)


def main() -> int:
    path, allowed = sys.argv[1], set(sys.argv[2:])
    samples, wrong = 0, []
    print("watching", flush=True)
    while not select.select([sys.stdin], [], [], 0.002)[0]:
        seen = sample(path)
        samples += 1
        if seen is not None and seen not in allowed and seen not in wrong:
            wrong.append(seen)
    print(json.dumps({"samples": samples, "wrong": wrong}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
