# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGKILL at every journal state and at random moments, with a watcher on the environment's path all the while.

A service uses the environment: when all has ended it has to run from the tree at the path, whoever was killed before.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import stopping
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import journal
from harness import KILLS, TRIES, Host, Lengths, Outcome, Watcher, matrix, state_of

SEED = int(os.environ.get("FAULTS_SEED", "20261123"))
TARGETS = ("playbook", "module", "uv", "everything")
# The states that a run goes through, by where it is made to fail.
STATES = {
    "never": ("freezing", "cloning", "open", "promoting", "promoted"),
    "before": ("freezing", "cloning", "open", "discarding", "discarded"),
    "after": ("freezing", "cloning", "open", "promoting", "promoted", "restoring", "restored"),
}
# Under in_place there is nothing to discard: the baseline is exchanged back.
IN_PLACE = {**STATES, "before": ("freezing", "cloning", "open", "restoring", "restored")}
WITH_UV = ("freezing", "open")  # uv writes the package list, and installs
# How many kills one after the other, before the run that is let alone: whoever mends a killed run may be killed too.
ROWS = (1, 2, 4)


@dataclass(frozen=True)
class Kill:
    """What is killed, and when: at a share of a state's length, or of a run's where no state is named."""

    target: str
    state: str
    share: float


@dataclass(frozen=True)
class Row:
    """Kills that follow each other on one host."""

    fail_at: str
    strategy: str
    conda: bool
    kills: tuple[Kill, ...]

    def __str__(self) -> str:
        kind = f"{self.strategy}{'-conda' if self.conda else ''}"
        return f"{len(self.kills)}-{kind}-{self.fail_at}"


def at_a_state(draw: random.Random, states: tuple[str, ...], number: int) -> Kill:
    """The kill of a state: every other one when the journal has just said it, the others some time after that."""
    state = states[number % len(states)]
    target = draw.choice([target for target in TARGETS if target != "uv" or state in WITH_UV])
    return Kill(target, state, draw.choice([0.0, draw.random()]))


def rows() -> list[Row]:
    """The kills of a whole suite, drawn once from the seed."""
    draw = random.Random(SEED)  # noqa: S311 - repeatable on purpose
    found: list[Row] = []
    number = 0
    while number < KILLS:
        fail_at = draw.choice(list(STATES))
        strategy = "in_place" if len(found) % 5 == 4 else "staged"
        states = (STATES if strategy == "staged" else IN_PLACE)[fail_at]
        kills = []
        for _ in range(min(draw.choice(ROWS), KILLS - number)):
            random_moment = Kill(draw.choice(TARGETS), "", draw.random())
            kills.append(random_moment if number % 2 else at_a_state(draw, states, number // 2))
            number += 1
        found.append(Row(fail_at, strategy, len(found) % 3 == 2, tuple(kills)))
    return found


def strike(host: Host, kill: Kill, lengths: Lengths, settings: dict[str, Any]) -> str:
    """Start a run and kill it; gives the state that the journal then is at.

    "" when the run could not be stopped at the state, or ended before anything of the target was to be seen.
    """
    left = host.journal()
    run = host.start(**settings)
    aimed: list[int] = []
    try:
        if kill.state:
            stopped = host.hold(run, kill.state, unlike=left)
            if not stopped:
                return ""
            aimed = host.chosen(run, kill.target)
            if kill.share:
                stopping.send(stopped, signal.SIGCONT)
                time.sleep(lengths.states[kill.state] * kill.share)
        else:
            time.sleep(lengths.run * kill.share)
        until = time.monotonic() + lengths.run
        # With no such process at this moment it is the next one of its kind.
        while run.poll() is None and time.monotonic() < until:
            if stopping.send(filter(stopping.is_alive, aimed), signal.SIGKILL) or host.kill(run, kill.target):
                return host.state()
            host.tell(run, signal.SIGCONT)
            time.sleep(0.001)
        return ""
    finally:
        host.tell(run, signal.SIGKILL if kill.target == "everything" else signal.SIGCONT)
        host.settle(run)


def strike_surely(host: Host, kill: Kill, lengths: Lengths, settings: dict[str, Any]) -> str:
    """Kill a run, trying again after runs that were faster."""
    for _ in range(TRIES if kill.state else 1):
        if left := strike(host, kill, lengths, settings):
            return left
    if kill.state and kill.share:  # the target is not there so long; as soon as the state is said, it is
        return strike_surely(host, Kill(kill.target, kill.state, 0.0), lengths, settings)
    assert not kill.state, f"no run could be killed at {kill.state}"
    return strike_surely(host, Kill("everything", "open", 0.0), lengths, settings)


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
    wrong += host.wrong()
    if row.fail_at == "never" and not host.is_result():
        wrong.append("the run after it did not bring the result")
    return wrong


@pytest.mark.fault("1 SIGKILL")
@pytest.mark.parametrize("row", rows(), ids=str)
def test_kills(make_host: Callable[..., Host], tally: Any, lengths: Lengths, row: Row) -> None:
    host = make_host(conda=row.conda, service=True)
    settings = {"fail_at": row.fail_at, "kind": row.strategy}
    watcher = Watcher(host)
    left = []
    try:
        for kill in row.kills:
            left.append(strike_surely(host, kill, lengths, settings))
        again = host.run(**settings)
    finally:
        seen = watcher.stop()
    wrong = what_is_wrong(host, row, again, seen)
    for kill, state in zip(row.kills, left, strict=True):
        tally.add(not wrong, f"1 SIGKILL of {kill.target}")
        tally.left(state)
    assert not wrong, f"{row.kills}: {'; '.join(wrong)}"


@pytest.mark.fault("1 SIGKILL in the middle of a write")
@pytest.mark.parametrize(
    ("state", "written"),
    [
        ("freezing", ".environment.gpu_stack/transactions/*/.inventory.json.*.new"),
        ("freezing", "home/.olmocr-baseline-*.new"),
        ("freezing", ".environment.gpu_stack/.journal.json.*.new"),
        ("open", ".environment.gpu_stack/.journal.json.*.new"),
        ("promoting", ".environment.gpu_stack/transactions/*/.meta.json.*.new"),
    ],
)
def test_half_written(make_host: Callable[..., Host], tally: Any, state: str, written: str) -> None:
    host = make_host(service=True)

    def is_there() -> bool:
        return any(host.folder.glob(written)) and host.state() == state

    run, _stopped = host.stopped_when(is_there, step=True)
    host.kill(run, "everything")
    host.settle(run)
    again = host.run()
    assert tally.add(again.rc == 0 and host.is_result() and host.is_safe()), [again.said, host.wrong()]


@pytest.mark.fault("7 everything gone between two steps, control node restarted")
@pytest.mark.parametrize(
    ("state", "strategy"),
    matrix(["freezing", "cloning", "open", "promoting", "promoted"], ["staged", "in_place"]),
)
def test_reboot(make_host: Callable[..., Host], tally: Any, state: str, strategy: str) -> None:
    host = make_host(service=True)
    run, _stopped = host.held(state, kind=strategy)
    host.kill(run, "everything")
    host.settle(run)
    body = host.journal()
    assert state_of(body) == state
    # After a restart the control node's boot has another name, and a process of that number may live again.
    body["owner"].update(boot="before", pid=1)
    host.journal_path.write_bytes(journal.encode(body))
    again = host.run(kind=strategy)
    assert tally.add(again.rc == 0 and host.is_safe() and host.is_result()), [again.said, host.wrong()]
