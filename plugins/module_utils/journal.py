# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of an environment's transaction, and who may write it.

The journal says what is under way, so that a later run can finish or undo it; it is replaced whole, never edited.
Two things keep runs apart. The lock (flock) is held while something works on the trees, by that process and by the
children that it hands the descriptor to: it ends with the last of them, however they end. The owner is the
`ansible-playbook` run that a transaction belongs to, from its begin to its end, between modules as well.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import glob
import hashlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import exchange

FORMAT = 1
LOCK_WAIT = 600.0  # seconds; an installer that outlived its run ends by itself, mostly long before this
# As each caller has to say it: the roles, the playbook rollback, the module by itself.
TAKEOVER = "flashinfer_takeover: true (rollback_takeover in playbooks/rollback.yml, takeover of the module)"
OWNER_KEYS = ("controller", "boot", "pid", "started", "host")


class JournalError(Exception):
    """The journal cannot be read; `newer` when a newer version of this collection wrote it."""

    def __init__(self, message: str, newer: bool = False) -> None:
        super().__init__(message)
        self.newer = newer


class LockBusy(Exception):
    """Something else works on the trees; the text says what."""


def state_dir(environment: str) -> str:
    """Where the journal, the lock and the kept trees of an environment lie, unless the operator says otherwise.

    A transaction works where a link leads, so whoever installs by the link has to find the same lock.
    """
    named = environment.rstrip("/")
    parent, name = os.path.split(os.path.realpath(named) if os.path.islink(named) else named)
    return os.path.join(parent, f".{name}.gpu_stack")


def told_time(seconds: float) -> str:
    """A time as people read it, in the host's own zone."""
    return datetime.datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


# --- the file ---------------------------------------------------------------------------------------------------------


def give(path: str, owner: tuple[int, int] | None) -> None:
    """Make what root created the property of the environment's owner, who must be able to go on without root."""
    if owner is not None and os.geteuid() == 0:
        os.chown(path, owner[0], owner[1], follow_symlinks=False)


def give_open(descriptor: int, owner: tuple[int, int] | None) -> None:
    """The same for an open file: the owner, whose folder it is in, may have put another in its place meanwhile."""
    if owner is not None and os.geteuid() == 0:
        os.fchown(descriptor, *owner)


def _drop_half_written(folder: str, name: str) -> None:
    """Remove what processes left of a file that were killed while they wrote it: nobody holds its lock any more."""
    for path in glob.glob(os.path.join(glob.escape(folder), f".{glob.escape(name)}.*.new")):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
            finally:
                os.close(descriptor)


def _open_new(path: str) -> int:
    """Create a file and hold its lock, which tells others that somebody still writes it."""
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.lstat(path).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # somebody took it for left behind, before it was locked


def write_file(path: str, data: bytes, owner: tuple[int, int] | None = None) -> None:
    """Put `data` at `path`, whole or not at all, durable on return. Raises OSError."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    _drop_half_written(folder, name)
    try:
        descriptor = _open_new(temporary)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            give_open(descriptor, owner)
            os.fsync(descriptor)
            os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    exchange.sync_folder(folder)


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def encode(body: dict[str, Any]) -> bytes:
    """The journal file's contents: the format, a checksum, and the body."""
    return json.dumps({"format": FORMAT, "sha256": _digest(body), "body": body}, indent=1).encode()


def decode(data: bytes) -> dict[str, Any]:
    """The body of a journal file. Raises JournalError."""
    try:
        content = json.loads(data)
    except ValueError:
        raise JournalError("it is no JSON: cut short or overwritten") from None
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise JournalError("it is no journal")
    if content["format"] > FORMAT:
        raise JournalError(
            f"it was written by a newer version of this collection (format {content['format']}, this one knows "
            f"{FORMAT}); use that version",
            newer=True,
        )
    body = content.get("body")
    if not isinstance(body, dict) or content.get("sha256") != _digest(body):
        raise JournalError("its checksum is wrong")
    return body


def read(path: str) -> dict[str, Any]:
    """The body of the journal at `path`, empty when there is none. Raises JournalError."""
    try:
        with open(path, "rb") as file:
            return decode(file.read())
    except FileNotFoundError:
        return {}


def last(environment: str) -> dict[str, Any]:
    """The transaction an environment is in, or was in last: {} where there was none, a `problem` where unknown."""
    try:
        return read(os.path.join(state_dir(environment), "journal.json")).get("transaction") or {}
    except (JournalError, OSError) as error:
        return {"state": "unreadable", "problem": str(error)}


# --- the lock ---------------------------------------------------------------------------------------------------------


def holders(path: str) -> list[str]:
    """The processes that have the file at `path` open, as far as this user may see."""
    found = []
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            if os.readlink(link) != path:
                continue
            pid = link.split("/")[2]
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if int(pid) != os.getpid():
            found.append(f"process {pid} ({command[:80]})")
    return sorted(set(found))


@contextlib.contextmanager
def lock(
    folder: str, wait: float = LOCK_WAIT, owner: tuple[int, int] | None = None, beat: bool = True
) -> Iterator[int]:
    """Hold the lock of a state folder; gives the descriptor, to be passed on to children that do long work.

    Waits `wait` seconds for another holder, then raises LockBusy. The file's time is the transaction's heartbeat;
    without `beat` it stays as it is.
    """
    path = os.path.join(os.path.realpath(folder), "lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        give_open(descriptor, owner)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT):
            raise
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(0.1)
                    continue
                who = ", ".join(holders(path)) or "a process of another user"
                raise LockBusy(
                    f"{folder} is locked by {who} since {told_time(os.stat(descriptor).st_mtime)}; "
                    f"waited {wait:.0f} s. Let it end, or end it, and run again"
                ) from None
        if beat:
            _beat(descriptor)
        yield descriptor
        if beat:
            _beat(descriptor)
    finally:
        os.close(descriptor)


def _beat(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # a read-only filesystem: a proof must work there too
        os.utime(descriptor)


@contextlib.contextmanager
def work_lock(folder: str, wait: float = LOCK_WAIT) -> Iterator[tuple[int, ...]]:
    """Hold the lock during work on a candidate; gives the `pass_fds` for `commands.run` and `Stage.run`.

    An installer that outlives its run then still holds it, and the next run waits instead of working beside it.
    Where the environment has no transaction yet there is nothing to hold.
    """
    if not os.path.isdir(folder):
        yield ()
        return
    with lock(folder, wait) as descriptor:
        yield (descriptor,)


def heartbeat(folder: str) -> float:
    """When something last worked on the trees, in seconds since the epoch; 0 when never."""
    try:
        return os.stat(os.path.join(folder, "lock")).st_mtime
    except OSError:
        return 0.0


# --- the owner --------------------------------------------------------------------------------------------------------


def key(owner: dict[str, Any]) -> str:
    """What tells one run from every other, for one inventory host of it."""
    return "/".join(str(owner.get(name, "")) for name in OWNER_KEYS)


def told(owner: dict[str, Any]) -> str:
    """An owner as people read it."""
    since = f" since {told_time(owner['since'])}" if owner.get("since") else ""
    return (
        f"{owner.get('label') or 'a run'} of {owner.get('user') or 'somebody'} on control node "
        f"{str(owner.get('controller', '')).split('/', 1)[0] or 'unknown'} (process {owner.get('pid')}, "
        f"host {owner.get('host')}){since}"
    )


def objection(
    current: dict[str, Any] | None,
    mine: dict[str, Any],
    *,
    now: float,
    beat: float,
    lease: float,
    gone: str = "",
) -> str | None:
    """Why `mine` may not take the transaction over from `current`, or None when it may.

    `gone` is the key of a run that the control node, which alone can know, has seen dead. `beat` is the last
    heartbeat, `lease` how many seconds without one make a run of another control node give way.
    """
    if not current or key(current) == key(mine) or gone == key(current):
        return None
    if current.get("controller") == mine.get("controller"):
        if current.get("boot") != mine.get("boot"):
            return None  # the control node was restarted, so that run is no more
        return (
            f"the environment belongs to another run: {told(current)}. Let it end or end it, then run again; "
            f"{TAKEOVER} takes the environment over regardless"
        )
    silent = now - beat
    if silent > lease:
        return None
    return (
        f"the environment belongs to a run of another control node: {told(current)}; last sign of it "
        f"{told_time(beat)}. It gives way {lease:.0f} s after its last sign, in {lease - silent:.0f} s; if that run "
        f"has surely ended, {TAKEOVER} takes the environment over now"
    )
