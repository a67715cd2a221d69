# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies on disk beside an environment: journal, trees, and what was frozen of each baseline.

In the state folder each transaction has `transactions/<id>` with `meta.json`, `inventory.json`, `hashes.json`, and
`tree`: the candidate at first, the kept baseline once the two trees are exchanged. `trash` and `held-back` take trees
that were replaced; `ballast` is given up when the disk is full.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import json
import os
import stat
import sys
from collections.abc import Callable
from typing import Any

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import distributions, inventory, journal

BALLAST = 1 << 20  # bytes given up when the disk is full, so that the journal of a restore can be written

TREES = ("baseline", "result")
# What is noted of a transaction's two trees.
NOTED = tuple(f"{which}_{what}" for which in TREES for what in ("ino", "generation"))
FS_IOC_GETVERSION = 0x80087601  # _IOR('v', 1, long) of linux/fs.h on 64-bit machines; elsewhere no filesystem knows it

Record = dict  # what the journal says of one transaction


class Refused(Exception):
    """The operation is refused or has failed; the text says what was expected, found, and what to do."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details


def folder_inode(path: str) -> int:
    """The inode number of a folder, 0 when there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    return status.st_ino if stat.S_ISDIR(status.st_mode) else 0


def generation(path: str) -> int | None:
    """What differs each time that an inode number is used again; None where the filesystem does not tell it.

    ext4, xfs, btrfs and f2fs do; tmpfs, NFS, ZFS and overlayfs do not.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return int.from_bytes(fcntl.ioctl(descriptor, FS_IOC_GETVERSION, bytes(8))[:4], sys.byteorder)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def noted(which: str, path: str) -> dict[str, int | None]:
    """What tells the tree at `path` from every other one, to be noted as a transaction's baseline or result."""
    return {f"{which}_ino": folder_inode(path) or None, f"{which}_generation": generation(path)}


def is_noted(which: str, path: str, known: dict[str, Any]) -> bool:
    """Whether the tree at `path` is the one that was noted as baseline or result.

    A folder made anew may get the inode number of one that was removed: then the generation tells, where both times it
    could be had. Notes of earlier versions of this collection have none.
    """
    inode = folder_inode(path)
    if not inode or inode != known.get(f"{which}_ino"):
        return False
    before, now = known.get(f"{which}_generation"), generation(path)
    return None in (before, now) or before == now


class StateFolder:
    """The state folder of one environment. It says what lies where, and decides nothing."""

    def __init__(self, environment: str, state_dir: str, warn: Callable[[str], None]) -> None:
        self.environment = environment
        self.state_dir = state_dir
        self.warn = warn
        self.journal_path = os.path.join(state_dir, "journal.json")

    def _folder(self, identifier: str) -> str:
        return os.path.join(self.state_dir, "transactions", identifier)

    def _tree(self, identifier: str) -> str:
        return os.path.join(self._folder(identifier), "tree")

    @property
    def _trash(self) -> str:
        return os.path.join(self.state_dir, "trash")

    @property
    def _held_back(self) -> str:
        return os.path.join(self.state_dir, "held-back")

    def _in(self, folder: str) -> list[str]:
        """The paths of what a folder holds; none where there is no such folder."""
        try:
            return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        except FileNotFoundError:
            return []

    def _unfinished_writes(self) -> list[str]:
        """What writes left that were killed; nobody else writes here while this run holds the lock."""
        folders = [self.state_dir, *map(self._folder, self._identifiers())]
        return [path for folder in folders for path in glob.glob(os.path.join(glob.escape(folder), ".*.new"))]

    @property
    def _owner_ids(self) -> tuple[int, int] | None:
        for path in (self.environment, self.state_dir):
            with contextlib.suppress(OSError):
                status = os.stat(path)
                return status.st_uid, status.st_gid
        return None

    def _load(self) -> dict[str, Any]:
        """The journal's body. Raises journal.JournalError, also where a journal of another environment was put here."""
        body = journal.read(self.journal_path)
        named = body.get("environment", self.environment)
        record: Record = body.get("transaction") or {}
        # An environment that was moved, or is reached by another path, still has the folder of its transaction.
        if named != self.environment and record and not os.path.isdir(self._folder(record["id"])):
            raise journal.JournalError(f"it is that of another environment, {named}")
        return body

    def _read(self) -> dict[str, Any]:
        try:
            return self._load()
        except journal.JournalError as error:
            raise Refused(f"the journal {self.journal_path} cannot be read: {error}") from None

    def _write(self, record: Record | None, owner: dict[str, Any] | None) -> None:
        data = journal.encode({"transaction": record, "owner": owner, "environment": self.environment})
        try:
            journal.write_file(self.journal_path, data, self._owner_ids)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.state_dir, "ballast"))
            journal.write_file(self.journal_path, data, self._owner_ids)

    def _write_at_last(self, record: Record | None, owner: dict[str, Any] | None) -> None:
        """Write what only says that all is done: for want of space it is left to the next `recover`."""
        try:
            self._write(record, owner)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self.warn(f"the journal {self.journal_path} could not be brought up to date, recover does that: {error}")

    def _meta(self, identifier: str) -> dict[str, Any]:
        path = os.path.join(self._folder(identifier), "meta.json")
        try:
            with open(path, encoding="utf-8") as file:
                meta = json.load(file)
        except (OSError, ValueError):
            return {}
        return meta if isinstance(meta, dict) and meta.get("id") == identifier else {}

    def _make_folder(self, folder: str) -> None:
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o700)
            journal.give(folder, self._owner_ids)

    def _put(self, identifier: str, name: str, data: bytes) -> None:
        journal.write_file(os.path.join(self._folder(identifier), name), data, self._owner_ids)

    def _put_meta(self, meta: dict[str, Any]) -> None:
        self._put(meta["id"], "meta.json", json.dumps(meta, indent=1).encode())

    def _identifiers(self) -> list[str]:
        """The transactions on disk, newest first."""
        try:
            return sorted(os.listdir(os.path.join(self.state_dir, "transactions")), reverse=True)
        except OSError:
            return []

    def _inventory(self, identifier: str) -> dict[str, inventory.Entry]:
        path = os.path.join(self._folder(identifier), "inventory.json")
        try:
            with open(path, "rb") as file:
                return inventory.load(file.read())
        except (OSError, ValueError) as error:
            raise Refused(f"the inventory of baseline {identifier} cannot be read ({path}: {error})") from None

    def _packages(self, identifier: str) -> dict[str, distributions.Distribution]:
        """What was installed in a baseline, by canonical name; without those of which too little was noted."""
        path = os.path.join(self._folder(identifier), "packages.json")
        try:
            with open(path, encoding="utf-8") as file:
                listed = dict(json.load(file))
        except (OSError, ValueError):
            return {}
        return {
            name: distributions.Distribution(name=name, path="", **noted)
            for name, noted in listed.items()
            if "editable" in noted or not noted["origin"]
        }

    def _hashes(self, identifier: str) -> dict[str, str]:
        """The RECORD hashes of a baseline."""
        path = os.path.join(self._folder(identifier), "hashes.json")
        try:
            with open(path, encoding="utf-8") as file:
                return dict(json.load(file))
        except (OSError, ValueError) as error:
            raise Refused(
                f"the RECORD hashes of baseline {identifier} cannot be read ({path}: {error}), so contents cannot be "
                "compared; sizes and times still can, without deep"
            ) from None

    def _holds_baseline(self, path: str, meta: dict[str, Any]) -> bool:
        """Whether the tree at `path` is the baseline of a transaction.

        What was noted of the two trees tells, except after a host was copied file by file; then the inventory does.
        """
        if not folder_inode(path) or not meta or is_noted("result", path, meta):
            return False
        if is_noted("baseline", path, meta):
            return True
        if any(is_noted(which, tree, meta) for which in TREES for tree in (self.environment, self._tree(meta["id"]))):
            return False
        return not self._differences(meta["id"], path)

    def _is_only_baseline(self, tree: str, meta: dict[str, Any]) -> bool:
        """Whether a tree holds the baseline, and the environment does not."""
        return self._holds_baseline(tree, meta) and not self._holds_baseline(self.environment, meta)

    def _differences(self, identifier: str, tree: str) -> list[str]:
        """How a tree differs from the baseline of a transaction."""
        return inventory.differences(self._inventory(identifier), inventory.take(tree))

    def _baselines(self) -> list[dict[str, Any]]:
        """The baselines that can be had, newest first; `path` is where each lies now."""
        found = []
        for identifier in self._identifiers():
            meta = self._meta(identifier)
            if not meta:
                continue
            tree = self._tree(identifier)
            if is_noted("baseline", self.environment, meta):
                path = self.environment
            elif folder_inode(tree) and not is_noted("result", tree, meta):
                path = tree
            else:
                continue
            told = {name: meta.get(name) for name in ("id", "created", "torch", "packages")}
            told["flashinfer"] = meta.get("flashinfer")
            found.append({**told, "path": path})
        return found
