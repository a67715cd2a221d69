# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of installed packages that the installation of another package wrote over.

An installer unpacks a wheel over whatever lies at its paths, and a file of the same size passes every check of sizes. A
file with the same contents is harmless: the wheels of a namespace share its `__init__.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import distributions, inventory

_State = tuple[int, int, int]


@dataclass(frozen=True)
class Owned:
    """One file of a distribution, as it lay there before."""

    distribution: str
    digest: str  # as a RECORD has it: `sha256=` and base64; "" without
    state: _State


def _state(path: str) -> _State | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _recorded(tree: str, names: Iterable[str]) -> list[tuple[str, str, str]]:
    """Distribution, path and digest of each file that the RECORDs of these distributions list."""
    installed = distributions.installed(tree)
    rows = []
    for name in names:
        folder = installed[name].path
        record = os.path.join(folder, "RECORD")
        for listed, digest in inventory.record_rows(record) if os.path.isfile(record) else ():
            rows.append((name, os.path.normpath(os.path.join(os.path.dirname(folder), listed)), digest))
    return rows


def take(tree: str, names: Iterable[str]) -> dict[str, Owned]:
    """The files of these distributions, by path; compiled ones are left out, Python writes them at will."""
    found = {}
    for name, path, digest in _recorded(tree, names):
        state = _state(path)
        if state and not path.endswith(".pyc"):
            found[path] = Owned(name, digest, state)
    return found


def _same_contents(path: str, digest: str) -> bool:
    # A file without a hash is what it was by its state alone.
    return digest.startswith("sha256=") and not inventory.wrong_contents("", {path: digest})


def told(tree: str, before: dict[str, Owned], came: Iterable[str]) -> list[str]:
    """Each file that is not what it was, with its package and the one among `came` that lists it too."""
    changed = [path for path, owned in before.items() if _state(path) != owned.state]
    if not changed:
        return []
    wrote = {path: name for name, path, _digest in _recorded(tree, came)}
    return [
        f"{os.path.relpath(path, tree)} of {before[path].distribution} was written over by "
        f"{wrote.get(path, 'something in the installation')}"
        for path in changed
        if not _same_contents(path, before[path].digest)
    ]
