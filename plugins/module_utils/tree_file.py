# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a file in a tree that belongs to another user, and nowhere else.

Root works on environments of a service's user. A link which that user laid in the way would have root write where the
user may not. So no folder below the tree is entered through a link, and a temporary file is always a new one.
"""

from __future__ import annotations

import contextlib
import os
import secrets

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class Unsafe(Exception):
    """A path that leads out of its tree, or may."""


def _unsafe(path: str) -> Unsafe:
    return Unsafe(
        f"expected folders of the environment itself on the way to a file that is written there, found {path}, which "
        "is a link or no folder; nothing is written through it: remove it"
    )


def inside(tree: str, folder: str) -> None:
    """Raise `Unsafe` where a folder of a tree lies elsewhere, by a link that leads out of the tree."""
    real = os.path.realpath(tree)
    if os.path.commonpath([real, os.path.realpath(folder)]) != real:
        raise _unsafe(folder)


def check(root: str, relative: str) -> None:
    """Raise `Unsafe` where `write` would, before anything is written."""
    path = root
    for part in os.path.dirname(relative).split(os.sep):
        path = os.path.join(path, part)
        if os.path.lexists(path) and (os.path.islink(path) or not os.path.isdir(path)):
            raise _unsafe(path)


def _enter(folder: int, name: str, path: str) -> int:
    """The folder `name` of an open one, made where it is missing."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=folder)
        # Whatever root's umask is: services read what lies there.
        os.chmod(name, 0o755, dir_fd=folder)  # noqa: S103 - as the environment's other folders
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except OSError as error:
        raise _unsafe(path) from error


def write(root: str, relative: str, content: bytes, mode: int = 0o644) -> None:
    """Write a file below `root` by an atomic rename, never in place: it may be a hard link to services' own.

    `root` may lie behind links; what is below it must not, else `Unsafe`.
    """
    *folders, name = relative.split(os.sep)
    opened = os.open(os.path.realpath(root), _FOLDER)
    try:
        path = root
        for part in folders:
            path = os.path.join(path, part)
            inner = _enter(opened, part, path)
            os.close(opened)
            opened = inner
        new = f".{name}.{secrets.token_hex(8)}.new"
        try:
            with open(os.open(new, _NEW, 0o600, dir_fd=opened), "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(new, name, src_dir_fd=opened, dst_dir_fd=opened)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=opened)
            raise
    finally:
        os.close(opened)


def read(path: str) -> bytes | None:
    """The content of a file that is no link; None where there is none. A link might lead to a file of root's."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return file.read()
    except OSError:
        return None
