# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A full disk and exhausted inodes, at every state of a run: the baseline stays, and a run with room succeeds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Host, matrix, wait_for

MOMENTS = ["begin", "freezing", "cloning", "open", "promoting", "promoted"]


def fill_bytes(folder: Path) -> None:
    """Take every free byte, also those of the last half block."""
    for name, size in (("large", 1 << 20), ("small", 512)):
        with (folder / f"filler-{name}").open("ab", buffering=0) as file:
            try:
                while file.write(b"\xff" * size):
                    pass
            except OSError:
                continue


def fill_inodes(folder: Path) -> None:
    """Take every free inode."""
    (folder / "filler-inodes").mkdir(exist_ok=True)
    number = 0
    try:
        while True:
            (folder / "filler-inodes" / f"{number}").touch()
            number += 1
    except OSError:
        return


def make_room(folder: Path) -> None:
    for path in folder.glob("filler-*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def strike(host: Host, folder: Path, moment: str, fill: Callable[[Path], None], **changes: Any) -> str:
    """A run during which the filesystem fills up, and one with room after it; gives what went wrong, or ""."""
    if moment == "begin":
        fill(folder)
        run = host.start(**changes)
    else:
        run = host.start(**changes)
        if wait_for(host, (moment,), run):
            fill(folder)
    said, _ = run.communicate(timeout=300)
    staged = changes.get("kind", "staged") == "staged"
    if staged and not (host.is_baseline() or host.is_result()):
        return f"neither the baseline nor the result on the full filesystem: {said[-1500:]}"
    if run.returncode == 0 and not host.is_result():
        return f"exit code 0 without the result: {said[-1500:]}"
    make_room(folder)
    again = host.run(**changes)
    if again.rc != 0 or not host.is_result() or not host.is_safe():
        return f"the run with room did not end well: {again.said[-1500:]}"
    return ""


def small_host(folder: Path, make_host: Callable[..., Host], cache: Path) -> Host:
    # The installer's cache lies on the small filesystem too: extraction is one of the moments at which it fills up.
    shutil.copytree(cache, folder / "cache", symlinks=True)
    host = make_host(folder=str(folder / "host"))
    host.cache = folder / "cache"
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
    run = host.start(fail_at=fail_at)
    wait_for(host, ("open" if fail_at == "before" else "promoted",), run)
    fill_bytes(folder)
    said, _ = run.communicate(timeout=300)
    assert tally.add(host.is_baseline() and run.returncode != 0), said
    assert os.statvfs(folder).f_bavail < 1000
