# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A full disk and exhausted inodes, at every state of a run: the baseline stays, and a run with room succeeds."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stopping
from harness import Host, matrix

MOMENTS = ["begin", "freezing", "cloning", "open", "promoting", "promoted"]
SETTLING = ("promoting", "promoted")  # what is left to be written then may fit into what the journal gives up


def is_refused_room(said: str) -> bool:
    """Whether a run tells that it found no room."""
    told = " ".join(said.split())
    return any(text in told for text in ("No space left on device", "of free space", "free inodes"))


def fill_bytes(folder: Path) -> None:
    """Take every free byte, also those of the last half block, and see a write fail."""
    refused = []
    for name, size in (("large", 1 << 20), ("small", 512)):
        with (folder / f"filler-{name}").open("ab", buffering=0) as file:
            try:
                while file.write(b"\xff" * size):
                    pass
            except OSError as error:
                refused.append(error.errno)
    assert refused == [errno.ENOSPC, errno.ENOSPC]
    assert os.statvfs(folder).f_bavail == 0


def fill_inodes(folder: Path) -> None:
    """Take every free inode, and see another file refused."""
    (folder / "filler-inodes").mkdir()
    number = 0
    with pytest.raises(OSError, match="No space left") as refused:
        while True:
            (folder / "filler-inodes" / f"{number}").touch()
            number += 1
    assert refused.value.errno == errno.ENOSPC
    assert os.statvfs(folder).f_favail == 0


@contextlib.contextmanager
def taking_what_is_freed(folder: Path) -> Iterator[None]:
    """Take each inode that becomes free meanwhile: an installer that replaces a package first removes files."""
    ended = threading.Event()

    def take() -> None:
        number = 0
        while not ended.wait(0.0005):
            with contextlib.suppress(OSError):
                (folder / "filler-inodes" / f"freed{number}").touch()
                number += 1

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def make_room(folder: Path) -> None:
    for path in folder.glob("filler-*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def run_on_a_full(
    host: Host, folder: Path, moment: str, fill: Callable[[Path], None], **changes: Any
) -> tuple[int, str]:
    """A run that finds the filesystem full from a moment on; gives its exit code, and what it said."""
    if moment == "begin":
        fill(folder)
        run = host.start(**changes)
    else:
        run, stopped = host.held(moment, **changes)
        fill(folder)
        assert host.state() == moment
        stopping.send(stopped, signal.SIGCONT)
    with taking_what_is_freed(folder) if fill is fill_inodes and moment == "open" else contextlib.nullcontext():
        said = host.end(run)
    return run.returncode, said


def strike(host: Host, folder: Path, moment: str, fill: Callable[[Path], None], **changes: Any) -> str:
    """A run during which the filesystem fills up, and one with room after it; gives what went wrong, or ""."""
    rc, said = run_on_a_full(host, folder, moment, fill, **changes)
    if moment not in SETTLING and (rc == 0 or not is_refused_room(said)):
        return f"exit code {rc}, and no word of a full disk: {said[-1500:]}"
    staged = changes.get("kind", "staged") == "staged"
    if staged and not (host.is_baseline() or host.is_result()):
        return f"neither the baseline nor the result on the full filesystem: {said[-1500:]}"
    if rc == 0 and not host.is_result():
        return f"exit code 0 without the result: {said[-1500:]}"
    make_room(folder)
    again = host.run(**changes)
    if again.rc != 0 or not host.is_result() or not host.is_safe():
        return f"the run with room did not end well: {host.wrong()} {again.said[-1500:]}"
    return ""


def small_host(folder: Path, make_host: Callable[..., Host], cache: Path) -> Host:
    # The installer's cache lies on the small filesystem too: extraction is one of the moments at which it fills up.
    shutil.copytree(cache, folder / "cache", symlinks=True)
    host = make_host(folder=str(folder / "host"))
    host.cache = folder / "cache"
    # The control node is another machine, with room.
    host.env.update(dict.fromkeys(("ANSIBLE_LOCAL_TEMP", "ANSIBLE_HOME"), str(folder.parent / "control node")))
    return host


@pytest.mark.fault("2 full disk")
@pytest.mark.parametrize(("moment", "kind"), matrix(MOMENTS, ["staged", "in_place"]))
def test_full_disk(make_host: Callable[..., Host], tmpfs: Any, cache: Path, tally: Any, moment: str, kind: str) -> None:
    folder = tmpfs("size=320m")
    host = small_host(folder, make_host, cache)
    wrong = strike(host, folder, moment, fill_bytes, kind=kind)
    assert tally.add(not wrong), wrong


@pytest.mark.fault("3 inodes exhausted")
@pytest.mark.parametrize("moment", MOMENTS)
def test_no_inodes(make_host: Callable[..., Host], tmpfs: Any, cache: Path, tally: Any, moment: str) -> None:
    folder = tmpfs("size=320m,nr_inodes=5000")
    host = small_host(folder, make_host, cache)
    wrong = strike(host, folder, moment, fill_inodes)
    assert tally.add(not wrong), wrong


@pytest.mark.fault("2 full disk")
@pytest.mark.parametrize("fail_at", ["before", "after"])
def test_a_restore_on_a_full_disk(
    make_host: Callable[..., Host], tmpfs: Any, cache: Path, tally: Any, fail_at: str
) -> None:
    folder = tmpfs("size=320m")
    host = small_host(folder, make_host, cache)
    rc, said = run_on_a_full(host, folder, "open" if fail_at == "before" else "promoted", fill_bytes, fail_at=fail_at)
    assert tally.add(host.is_baseline() and rc != 0), said
    assert os.statvfs(folder).f_bavail < 1000
