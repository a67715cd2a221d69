# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands, journal

MINE = {
    "controller": "deploy/1/ns",
    "boot": "b1",
    "pid": 10,
    "started": "100",
    "host": "vm1",
    "user": "ann",
    "label": "x",
}


def other(**changes: Any) -> dict[str, Any]:
    return {**MINE, "pid": 20, "started": "200", "since": 1000.0, **changes}


@pytest.mark.parametrize(
    ("current", "beat", "gone", "told"),
    [
        (None, 0.0, "", None),
        (dict(MINE, heartbeat=5), 0.0, "", None),
        (other(), 4000.0, "", "process 20"),
        (other(), 4000.0, journal.key(other()), None),
        (other(), 4000.0, journal.key(other(pid=21)), "process 20"),
        (other(boot="b0"), 4000.0, "", None),  # the control node was restarted
        (other(host="vm1-alias", pid=10, started="100"), 4000.0, "", "vm1-alias"),
        (other(controller="second/2/ns"), 4000.0, "", "another control node"),
        (other(controller="second/2/ns"), 4000.0, journal.key(other()), "another control node"),
        (other(controller="second/2/ns"), 1000.0, "", None),  # silent for longer than the lease
    ],
)
def test_who_may_take_over(current: dict[str, Any] | None, beat: float, gone: str, told: str | None) -> None:
    said = journal.objection(current, MINE, now=5000.0, beat=beat, lease=3600.0, gone=gone)
    if told is None or said is None:
        assert (said, told) == (None, None)
    else:
        # By the names that those who read it can set.
        assert told in said and "flashinfer_takeover: true" in said and "rollback_takeover" in said


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    assert journal.read(str(path)) == {}
    journal.write_file(str(path), journal.encode({"a": ["ü", 1]}))
    assert journal.read(str(path)) == {"a": ["ü", 1]}
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("data", "newer", "told"),
    [
        (b"", False, "cut short"),
        (journal.encode({"a": 1})[:-20], False, "cut short"),
        (b"\x00\xff" * 50, False, "cut short"),
        (b"[]", False, "no journal"),
        (journal.encode({"a": 1}).replace(b'"a": 1', b'"a": 2'), False, "checksum"),
        (journal.encode({"a": 1}).replace(b'"format": 1', b'"format": 7'), True, "newer version"),
    ],
)
def test_a_bad_journal_is_told_apart(data: bytes, newer: bool, told: str) -> None:
    with pytest.raises(journal.JournalError, match=told) as raised:
        journal.decode(data)
    assert raised.value.newer is newer


def test_a_second_holder_is_told_who_the_first_is(tmp_path: Path) -> None:
    program = "import fcntl, os, sys, time\nfd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
    program += "fcntl.flock(fd, fcntl.LOCK_EX)\nprint('held', flush=True)\ntime.sleep(60)\n"
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    try:
        holder.stdout.readline()
        with pytest.raises(journal.LockBusy, match=f"process {holder.pid}"), journal.lock(str(tmp_path), wait=0.2):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with journal.lock(str(tmp_path), wait=5.0):
        pass


def test_a_child_that_outlives_the_work_still_holds_the_lock(tmp_path: Path) -> None:
    with journal.work_lock(str(tmp_path)) as descriptors:
        background = ["sh", "-c", "sleep 1.5 </dev/null >/dev/null 2>&1 &"]
        assert commands.run(background, timeout=10, pass_fds=descriptors).ok
    with pytest.raises(journal.LockBusy), journal.lock(str(tmp_path), wait=0.2):
        pass
    with journal.lock(str(tmp_path), wait=10.0):
        pass


def test_work_without_a_transaction_needs_no_lock(tmp_path: Path) -> None:
    with journal.work_lock(str(tmp_path / "none")) as descriptors:
        assert descriptors == ()


def test_holding_the_lock_is_a_sign_of_life(tmp_path: Path) -> None:
    assert journal.heartbeat(str(tmp_path)) == 0.0
    with journal.lock(str(tmp_path)):
        pass
    os.utime(tmp_path / "lock", (1, 1))
    with journal.lock(str(tmp_path)):
        assert journal.heartbeat(str(tmp_path)) > 1


def test_a_full_disk_leaves_the_old_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.json"
    journal.write_file(str(path), b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        journal.write_file(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert sorted(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed_and_what_another_writes_stays(tmp_path: Path) -> None:
    # Numbers of living processes, all: they are used again, so they tell nothing.
    names = (f".a.json.{os.getppid()}.new", f".b.json.{os.getppid()}.new", ".a.json.1.new")
    left, other_file, being_written = (tmp_path / name for name in names)
    for path in (left, other_file, being_written):
        path.write_bytes(b"half")
    with being_written.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        journal.write_file(str(tmp_path / "a.json"), b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a.json", other_file, being_written])


def test_an_owner_as_people_read_it() -> None:
    whole = {"label": "site", "user": "ann", "controller": "node/1a2b/pid:[4]", "pid": 7, "host": "vm1", "since": 0}
    assert journal.told(whole) == "site of ann on control node node (process 7, host vm1)"
    assert journal.told({**whole, "since": 86400}).endswith(f"host vm1) since {journal.told_time(86400)}")
    assert journal.told({}) == "a run of somebody on control node unknown (process None, host None)"


def test_a_silent_run_gives_way_after_its_lease_and_no_sooner() -> None:
    current, mine = {"controller": "a", "pid": 1}, {"controller": "b", "pid": 2}

    def said(now: float) -> str | None:
        return journal.objection(current, mine, now=now, beat=1000, lease=60)

    assert said(1061) is None
    assert "It gives way 60 s after its last sign, in 0 s;" in (said(1060) or "")
    assert "It gives way 60 s after its last sign, in 50 s;" in (said(1010) or "")
