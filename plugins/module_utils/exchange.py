# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exchange two folders in one atomic step, and make what was written durable.

Python has no call for renameat2(2) and syncfs(2); both are reached through the C library.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# For C libraries without renameat2 (glibc before 2.28, musl before 1.2.6): numbers from the kernel's syscall tables.
_RENAMEAT2 = {"x86_64": 316, "aarch64": 276, "ppc64le": 357, "s390x": 347}


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def exchange(first: str, second: str) -> None:
    """Exchange two existing paths of one filesystem: at every moment both names exist. Raises OSError."""
    libc = _libc()
    arguments = (_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), ctypes.c_uint(_RENAME_EXCHANGE))
    if hasattr(libc, "renameat2"):
        failed = libc.renameat2(*arguments)
    elif platform.machine() in _RENAMEAT2:
        failed = libc.syscall(ctypes.c_long(_RENAMEAT2[platform.machine()]), *arguments)
    else:
        raise OSError(errno.ENOSYS, "this system has no renameat2", first)
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), first, None, second)


def sync_filesystem(path: str) -> None:
    """Write everything of the filesystem that holds `path` to its disk. Raises OSError, also for lost writes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc().syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(descriptor)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable: a rename is not before its folder is synced."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
