# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clone an environment so that work on one tree does not reach the other.

Where the filesystem shares extents (reflink), the clone is independent from the start. Elsewhere its files are hard
links: replacing a file in one tree leaves the other alone, *writing into* one changes both. Installers replace; so the
files that something is known to write into become real copies.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.inventory import CACHE, Entry

# What is written into, and by whom:
WRITTEN_IN_PLACE = (
    "conda-meta/*",  # conda appends to history, rewrites state and the packages' manifests
    "etc/*",  # conda env config, Jupyter's configuration, activation hooks that operators edit
    "pyvenv.cfg",  # venv --upgrade
    "bin/activate*",  # venv --upgrade, operators
    "bin/Activate.ps1",
    "bin/python*",  # venv --upgrade --copies, where it is no link
    "*.pth",  # setuptools' easy-install.pth, operators
    "*.egg-link",  # setup.py develop
    "*/__editable__*",  # the finders of editable installs
    "*/direct_url.json",  # where an editable install points to
    "*/sitecustomize.py",
    "*/usercustomize.py",
)
# What no installer lists may be written by anything (notes, logs, databases), so it is copied too, up to this size:
# model weights that somebody put into the environment would fill the disk.
COPIED_UNLISTED = 64 << 20  # bytes
SPARE = 128 << 20  # bytes that begin leaves free beside the copies: folders, the inventory, the journal
SPARE_INODES = 2000
CLONE_TIMEOUT = 3600  # seconds; a reflink clone of 50,000 files on a slow disk takes minutes
REMOVE_TIMEOUT = 3600  # seconds


class CloneError(Exception):
    """A tree could not be cloned or removed; the text is what the tool said."""


def must_copy(entries: dict[str, Entry], listed: dict[str, str]) -> list[str]:
    """The files that a hardlink clone must copy for real, sorted."""
    found = []
    for path, entry in entries.items():
        if entry[0] != "f":
            continue
        unlisted = path not in listed and f"/{CACHE}/" not in path and entry[1] <= COPIED_UNLISTED
        if unlisted or any(fnmatch.fnmatchcase(path, pattern) for pattern in WRITTEN_IN_PLACE):
            found.append(path)
    return sorted(found)


def needs(entries: dict[str, Entry], copies: list[str]) -> tuple[int, int]:
    """The bytes and inodes that a hardlink clone takes, with what is to stay free."""
    folders = sum(1 for entry in entries.values() if entry[0] == "d")
    size = sum(entries[path][1] + 4096 for path in copies) + folders * 4096
    return size + SPARE, folders + len(copies) + SPARE_INODES


def shortage(folder: str, entries: dict[str, Entry], copies: list[str]) -> str | None:
    """Why the filesystem of `folder` cannot take the clone, or None."""
    size, inodes = needs(entries, copies)
    room = os.statvfs(folder)
    if room.f_bavail * room.f_frsize < size:
        return (
            f"the clone needs {size >> 20} MiB of free space, the filesystem of {folder} has "
            f"{room.f_bavail * room.f_frsize >> 20} MiB; free some space there"
        )
    # A filesystem that makes inodes as needed (btrfs) says that it has none at all.
    if room.f_files and room.f_favail < inodes:
        return (
            f"the clone needs {inodes} free inodes, the filesystem of {folder} has {room.f_favail}; "
            "remove files there (df -i shows the use)"
        )
    return None


def reflinks(file: str, folder: str) -> bool:
    """Whether the filesystem can share the contents of `file` with a new file in `folder` (tried for real)."""
    trial = os.path.join(folder, "reflink-trial")
    result = commands.run(["cp", "--reflink=always", "--", file, trial], timeout=60)
    if os.path.lexists(trial):
        os.unlink(trial)
    return result.ok


def _copy(source: str, target: str) -> None:
    """Put a real copy in the place of a link: contents, owner, mode, extended attributes and times.

    All of it through two open files. The folders are the environment's owner's, who could put a link to another file
    into the place of a name while root works there.
    """
    temporary = target + ".gpu-stack-copy"
    with (
        open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as old,
        open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as new,
    ):
        status = os.fstat(old.fileno())
        shutil.copyfileobj(old, new, 1 << 20)
        new.flush()
        if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(new.fileno(), status.st_uid, status.st_gid)  # first: it drops set-user-ID bits and capabilities
        os.fchmod(new.fileno(), status.st_mode & 0o7777)
        for name in os.listxattr(old.fileno()):
            # What this user may not set (another's security label), or this filesystem does not keep.
            with contextlib.suppress(OSError):
                os.setxattr(new.fileno(), name, os.getxattr(old.fileno(), name))
        os.utime(new.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
    os.rename(temporary, target)


def make(source: str, target: str, copies: list[str], reflink: bool, pass_fds: tuple[int, ...] = ()) -> None:
    """Clone `source` to `target`, which must not exist; `cp` keeps links, modes, owners, times, extended attributes.

    Raises CloneError or OSError; what was begun is left for the caller to remove.
    """
    share = ["--reflink=always"] if reflink else ["--link"]
    argv = ["cp", "--archive", *share, "--no-target-directory", "--", source, target]
    result = commands.run(argv, timeout=CLONE_TIMEOUT, pass_fds=pass_fds)
    if not result.ok:
        raise CloneError(result.outcome(lines=5))
    if reflink:
        return
    for path in copies:
        _copy(os.path.join(source, path), os.path.join(target, path))
    for folder in {os.path.dirname(path) for path in copies}:
        # Renaming a copy into its folder has changed the folder's time.
        status = os.stat(os.path.join(source, folder))
        os.utime(os.path.join(target, folder), ns=(status.st_atime_ns, status.st_mtime_ns))


def remove(tree: str, pass_fds: tuple[int, ...] = ()) -> None:
    """Remove a tree, also one with folders that forbid it. Raises CloneError when something stays."""
    if not os.path.lexists(tree):
        return
    argv = ["rm", "-rf", "--one-file-system", "--", tree]
    result = commands.run(argv, timeout=REMOVE_TIMEOUT, pass_fds=pass_fds)
    if not result.ok and os.geteuid() != 0:
        # Folders only: the mode of a file is shared with the other tree through the hard link.
        writable = ["find", tree, "-xdev", "-type", "d", "-exec", "chmod", "u+rwx", "--", "{}", "+"]
        commands.run(writable, timeout=REMOVE_TIMEOUT, pass_fds=pass_fds)
        result = commands.run(argv, timeout=REMOVE_TIMEOUT, pass_fds=pass_fds)
    if not result.ok:
        raise CloneError(result.outcome(lines=5))
