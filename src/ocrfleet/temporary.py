# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Temporary files of a command: what it leaves when it is killed, the next command removes.

ansible-runner writes the operator's environment and the policy's variables into such files.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "lock"  # of a folder: the kernel lets go when its process ends, however it ends


@contextmanager
def files_below(state: Path) -> Iterator[None]:
    """Have Python's temporary files lie below a private folder, and remove what commands that ended left there."""
    place = state / "tmp"
    for folder in (state, place):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Nobody takes a folder for left over that is not locked yet.
    with _locked(place):
        for folder in place.iterdir():
            _remove_left(folder)
        mine = Path(tempfile.mkdtemp(dir=place))
        held = _lock(mine)
    before = tempfile.tempdir
    tempfile.tempdir = str(mine)
    try:
        yield
    finally:
        tempfile.tempdir = before
        shutil.rmtree(mine, ignore_errors=True)
        os.close(held)


def _lock(folder: Path, how: int = fcntl.LOCK_EX) -> int:
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = _lock(folder)
    try:
        yield
    finally:
        os.close(descriptor)


def _remove_left(folder: Path) -> None:
    if not folder.is_dir():
        return
    try:
        held = _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        return  # at work, or just gone
    shutil.rmtree(folder, ignore_errors=True)
    os.close(held)
