# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stop processes, so that what a test does at a state of the journal is done at that state and not after it.

Whoever waits for a state and then acts races with the run: most states last a few milliseconds. Here a module is let
go on for a fraction of a millisecond, stopped, and looked at, until the journal says what is waited for.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

STEP = 0.0002  # seconds; the shortest state, `promoting`, lasts about a millisecond
GRAIN = 0.0001  # seconds between two looks at a journal whose next state lasts long enough to be stopped in


def send(pids: Iterable[int], number: int) -> int:
    """Send a signal to processes; gives how many there were."""
    reached = 0
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
        reached += 1
    return reached


def condition(pid: int) -> str:
    """What the kernel says of a process: R runs, S and D wait, T is stopped; Z ended or not there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "Z"


def is_alive(pid: int) -> bool:
    return condition(pid) not in "ZX"


def wait_till_stopped(pids: Iterable[int]) -> None:
    """Wait for the stop of processes that were sent SIGSTOP: one in a system call ends that first.

    But for one: who starts a child by vfork(2) waits in D for it, and the child may be stopped before it starts.
    """
    for pid in pids:
        since = time.monotonic()
        while (found := condition(pid)) not in "TtZX" and not (found == "D" and time.monotonic() > since + 1):
            assert time.monotonic() < since + 60, f"process {pid} does not stop, it is at {found}"


def step(pid: int) -> None:
    """Let a process go on for a moment."""
    send([pid], signal.SIGCONT)
    time.sleep(STEP)
    send([pid], signal.SIGSTOP)
    wait_till_stopped([pid])
