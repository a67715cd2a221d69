# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an environment is, told without any code of the collection: the judge must not share the defendant's bugs.

Run as a program it watches an environment's path, sample after sample, until its standard input ends, and prints how
many samples it took and each state that was neither of the two allowed ones.
"""

from __future__ import annotations

import ast
import base64
import csv
import hashlib
import json
import os
import select
import stat
import sys

# For an environment's own Python: two of PyTorch's three values, as an import gives them.
ASK_TORCH = "import torch; print(torch.__version__, torch.version.cuda)"
MTIME = 5  # where an entry of `tree` has it
# All that may lie in a state folder, and in that of one transaction in it.
STATE = {"journal.json", "lock", "ballast", "transactions", "trash", "held-back"}
TRANSACTION = {"meta.json", "inventory.json", "hashes.json", "packages.json", "tree"}
EXPORTS = {"olmocr-baseline.txt", "olmocr-env-baseline.yml"}


def tree(root: str) -> dict[str, list[object]]:
    """Every entry of a tree but Python's caches."""
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
            entry.append(status.st_mtime_ns)
            if regular:
                with open(path, "rb") as file:
                    entry.append(hashlib.sha256(file.read()).hexdigest())
            found[os.path.relpath(path, root)] = entry
    return found


def without_times(entries: dict[str, list[object]]) -> dict[str, list[object]]:
    return {path: entry[:MTIME] + entry[MTIME + 1 :] for path, entry in entries.items()}


def metadata(root: str) -> list[str]:
    """The folders of the distributions' metadata."""
    found = []
    for folder, _, _ in os.walk(root):
        # Packages that others carry inside them (setuptools does) have RECORDs of another place.
        if folder.endswith(".dist-info") and os.path.basename(os.path.dirname(folder)) == "site-packages":
            found.append(folder)
    return sorted(found)


def rows(info: str) -> list[list[str]]:
    """The rows of a RECORD, each with the path of its file put in place of its name."""
    with open(os.path.join(info, "RECORD"), newline="") as file:
        return [[os.path.join(os.path.dirname(info), row[0]), *row[1:]] for row in csv.reader(file)]


def complete(root: str) -> list[str]:
    """What RECORDs and conda's manifests promise and the tree does not hold, and metadata without a RECORD."""
    missing = []
    for info in metadata(root):
        if not os.path.exists(os.path.join(info, "RECORD")):
            missing.append(info)
            continue
        for path, _hash, size in rows(info):
            if not os.path.exists(path) or (size and os.path.getsize(path) != int(size)):
                missing.append(path)
    manifests = os.path.join(root, "conda-meta")
    for name in os.listdir(manifests) if os.path.isdir(manifests) else ():
        if name.endswith(".json"):
            with open(os.path.join(manifests, name)) as file:
                files = [os.path.join(root, path) for path in json.load(file)["files"]]
            missing += [path for path in files if not os.path.exists(path)]
    return missing


def wrong_contents(root: str) -> list[str]:
    """The files that are not those of their RECORD's hash."""
    wrong = []
    for info in metadata(root):
        for path, expected, _size in rows(info):
            if expected:
                with open(path, "rb") as file:
                    digest = base64.urlsafe_b64encode(hashlib.sha256(file.read()).digest()).decode().rstrip("=")
                if expected != f"sha256={digest}":
                    wrong.append(path)
    return wrong


def torch(site: str) -> str:
    """PyTorch's three values, as its files have them: metadata, `__version__`, and the version of CUDA."""
    values = {"metadata": "none", "__version__": "none", "cuda": "none"}
    for name in os.listdir(site):
        if name.startswith("torch-") and name.endswith(".dist-info"):
            with open(os.path.join(site, name, "METADATA")) as file:
                values["metadata"] = next(line.split()[1] for line in file if line.startswith("Version:"))
    try:
        with open(os.path.join(site, "torch/version.py")) as file:
            program = ast.parse(file.read())
    except (OSError, SyntaxError):
        program = ast.parse("")
    for statement in program.body:
        name = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if isinstance(statement, ast.Assign) and isinstance(name, ast.Name) and name.id in values:
            values[name.id] = str(ast.literal_eval(statement.value))
    return "torch " + " ".join(values.values())


def signature(root: str) -> str:
    """The versions that a tree holds, PyTorch's three values, and whether all files are there."""
    infos = metadata(root)
    if not infos:
        return "BROKEN: no distributions"
    broken = complete(root)
    names = " ".join(os.path.basename(info) for info in infos)
    return f"{names} {torch(os.path.dirname(infos[0]))}" + (f" BROKEN {len(broken)}" if broken else "")


def left_behind(state_dir: str, last: dict[str, object], whole: set[str]) -> list[str]:
    """What nobody needs in a state folder when all work has ended, and kept baselines that are not whole.

    `last` is the journal's transaction, `whole` the signatures that a baseline may have.
    """
    if not os.path.isdir(state_dir):
        return []
    wrong = [name for name in os.listdir(state_dir) if name not in STATE and ".unreadable-" not in name]
    for folder in ("trash", "held-back", "transactions"):
        path = os.path.join(state_dir, folder)
        found = sorted(os.listdir(path)) if os.path.isdir(path) else []
        if folder != "transactions":
            wrong += [f"{folder}/{name}" for name in found]
            continue
        for name in found:
            wrong += [f"{name}: {what}" for what in _left_in(os.path.join(path, name), name, last, whole)]
    return [f"left behind: {what}" for what in wrong]


def _left_in(folder: str, name: str, last: dict[str, object], whole: set[str]) -> list[str]:
    wrong = [entry for entry in os.listdir(folder) if entry not in TRANSACTION | EXPORTS]
    try:
        with open(os.path.join(folder, "meta.json")) as file:
            promoted = json.load(file).get("promoted") is True
    except OSError:
        return [*wrong, "no meta.json"]
    kept = os.path.join(folder, "tree")
    if os.path.isdir(kept):
        if not promoted or (name == last.get("id") and last.get("state") != "promoted"):
            wrong.append("the tree of a candidate that was dropped")
        elif signature(kept) not in whole:
            wrong.append(f"a kept baseline that is not whole: {signature(kept)}")
    return wrong


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
        except (OSError, ValueError, LookupError, StopIteration) as error:
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
