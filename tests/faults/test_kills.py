# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGKILL at every journal state and at random moments, with a watcher on the environment's path all the while."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from harness import KILLS, Host, Outcome, Watcher, matrix, wait_for

SEED = int(os.environ.get("FAULTS_SEED", "20261123"))
TARGETS = ("playbook", "module", "uv", "everything")
# The states that a run goes through, by where it is made to fail.
STATES = {
    "never": ("freezing", "cloning", "open", "promoting", "promoted"),
    "before": ("freezing", "cloning", "open", "discarding", "discarded"),
    "after": ("freezing", "cloning", "open", "promoting", "promoted", "restoring", "restored"),
}
# How many kills one after the other, before the run that is let alone: whoever mends a killed run may be killed too.
ROWS = (1, 2, 4)


@dataclass(frozen=True)
class Kill:
    """When, and what: at a state of the journal and some time after it, or at a share of a run's length."""

    target: str
    state: str
    delay: float  # seconds
    moment: float  # of a run's length, where no state is named


@dataclass(frozen=True)
class Row:
    """Kills that follow each other on one host."""

    fail_at: str
    strategy: str
    kills: tuple[Kill, ...]


def rows() -> list[Row]:
    """The kills of a whole suite, drawn once from the seed."""
    draw = random.Random(SEED)  # noqa: S311 - repeatable on purpose
    found: list[Row] = []
    number = 0
    while number < KILLS:
        fail_at = draw.choice(list(STATES))
        kills = []
        for _ in range(min(draw.choice(ROWS), KILLS - number)):
            state = STATES[fail_at][(number // 2) % len(STATES[fail_at])] if number % 2 == 0 else ""
            kills.append(Kill(draw.choice(TARGETS), state, draw.random() * 0.05, draw.random()))
            number += 1
        found.append(Row(fail_at, "in_place" if len(found) % 5 == 4 else "staged", tuple(kills)))
    return found


def strike(host: Host, kill: Kill, length: float, settings: dict[str, Any]) -> bool:
    """Start a run and kill it; False when it ended before anything of the target was to be seen."""
    left = host.journal()
    run = host.start(**settings)
    if kill.state:
        wait_for(host, (kill.state,), run, unlike=left)
        time.sleep(kill.delay)
    else:
        time.sleep(length * kill.moment)
    until = time.monotonic() + length
    killed = run.poll() is None and host.kill(run, kill.target)
    while not killed and run.poll() is None and time.monotonic() < until:
        time.sleep(0.001)  # no such process at this moment: the next one of its kind
        killed = host.kill(run, kill.target)
    host.settle(run)
    return killed


def what_is_wrong(host: Host, row: Row, again: Outcome, seen: dict[str, Any]) -> list[str]:
    """How the run that was let alone, and everything seen at the path till its end, miss what is promised."""
    wrong = []
    if row.strategy == "staged" and seen["wrong"]:
        wrong.append(f"seen at the path: {seen['wrong']}")
    if seen["samples"] < 10:
        wrong.append(f"only {seen['samples']} samples")
    # A run that is made to fail must fail of that, and of nothing else.
    injected = f"injected {row.fail_at} promote" in again.said
    if (again.rc == 0) != (row.fail_at == "never") or injected == (row.fail_at == "never"):
        wrong.append(f"the run after it ended with {again.rc}: {again.said[-1500:]}")
    if not host.is_safe():
        wrong.append(f"neither the baseline nor the result; journal at {host.state()}")
    if row.fail_at == "never" and not host.is_result():
        wrong.append("the run after it did not bring the result")
    return wrong


@pytest.mark.fault("1 SIGKILL")
@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{len(row.kills)}-{row.strategy}-{row.fail_at}")
def test_kills(make_host: Callable[..., Host], tally: Any, run_length: float, row: Row) -> None:
    host = make_host()
    settings = {"fail_at": row.fail_at, "kind": row.strategy}
    watcher = Watcher(host)
    hit = []
    try:
        for kill in row.kills:
            if not strike(host, kill, run_length, settings):
                # The run was faster; one that is killed as soon as it has begun is not.
                kill = Kill("everything", "open", 0.0, 0.0)
                assert strike(host, kill, run_length, settings), "no kill hit anything"
            hit.append(kill.target)
        again = host.run(**settings)
    finally:
        seen = watcher.stop()
    wrong = what_is_wrong(host, row, again, seen)
    for target in hit:
        tally.add(not wrong, f"1 SIGKILL of {target}")
    assert not wrong, f"{row}: {'; '.join(wrong)}"


@pytest.mark.fault("7 everything gone between two steps, control node restarted")
@pytest.mark.parametrize(
    ("state", "strategy"),
    matrix(["freezing", "cloning", "open", "promoting", "promoted"], ["staged", "in_place"]),
)
def test_reboot(make_host: Callable[..., Host], tally: Any, state: str, strategy: str) -> None:
    host = make_host()
    run = host.start(kind=strategy)
    wait_for(host, (state,), run)
    host.kill(run, "everything")
    host.settle(run)
    path = host.state_dir / "journal.json"
    boot = (host.journal().get("owner") or {}).get("boot")
    if boot:
        # After a restart the control node's boot has another name, and a process of that number may live again.
        from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import journal

        body = host.journal()
        body["owner"].update(boot="before", pid=1)
        path.write_bytes(journal.encode(body))
    again = host.run(kind=strategy)
    assert tally.add(again.rc == 0 and host.is_safe() and host.is_result()), again.said
