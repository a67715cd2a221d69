#!/usr/bin/env python3
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulate the scheduling of large rollouts: rollout_simulation.py [HOSTS …]. Simulated are the hosts, not the driver.

Policy, waves, gates, the state file with its syncs, kills and resume are the real code. What is replaced is
ansible-playbook, which answers at once, and the clock. 2 % of the hosts fail at first, and the driver is killed four
times. Printed are what the rollout itself costs the control node, and what its state takes.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ocrfleet import errors, planning, policy, report
from ocrfleet.ansible import Ansible, Outcome
from ocrfleet.output import rollout_data
from ocrfleet.rollout import Driver
from ocrfleet.state import State

REAL = json.loads((Path(__file__).parents[1] / "tests/unit/fixtures/report_evidence.json").read_text(encoding="utf-8"))
POLICY = {
    "waves": [1, "1%", "10%", "50%", "100%"],
    "at_once": "25%",
    "allowed_failures": "1%",
    "groups": {f"rack_{number}": {"at_once": "50%"} for number in range(20)},
    "soak_minutes": 30,
}


class Killed(BaseException):
    """Stands for SIGKILL of the driver."""


class Quiet:
    """Nobody watches."""

    def note(self, text: str) -> None: ...
    def wave(self, number: int, cohort: str, hosts: int) -> None: ...
    def event(self, kind: str, host: str, task: str) -> None: ...
    def host(self, name: str, state: str, message: str) -> None: ...


class Hosts(Ansible):
    """All the hosts: broken ones fail until they are repaired; `killer` ends the driver in the middle of a run."""

    broken: set[str] = set()
    runs: dict[str, int] = {}
    converted: dict[str, int] = {}
    die_at: set[int] = set()
    calls = 0

    def run(self, run: str, playbook: str, hosts: list[str], *_rest: Any, **_more: Any) -> dict[str, Outcome]:
        cls = type(self)
        cls.calls += 1
        (self.folder / "runs" / run).mkdir(parents=True)
        if cls.calls in cls.die_at:
            raise Killed
        found = {}
        for host in hosts:
            cls.runs[host] = cls.runs.get(host, 0) + 1
            state = "failed" if host in cls.broken else "converted"
            if state == "converted":
                cls.converted[host] = cls.converted.get(host, 0) + 1
            evidence = {
                "host": host,
                "result": "verified",
                "transaction": {"baseline_id": f"b-{host}"},
                "lock": "x==1\n",
            }
            # With all that a real report says, so that the state file is as large as a real one.
            found[host] = Outcome(state, "", {**REAL, **evidence})
        return found


def simulate(size: int, folder: Path) -> None:
    names = [f"gpu-{number:05d}" for number in range(size)]
    fleet = planning.Fleet(names, {name: [f"rack_{number % 20}"] for number, name in enumerate(names)})
    baselines = {name: "main" if number % 50 else "other" for number, name in enumerate(names)}
    Hosts.broken = set(random.Random(1).sample(names, size // 50))  # noqa: S311 - the same hosts each time
    Hosts.runs, Hosts.converted, Hosts.calls, Hosts.die_at = {}, {}, 0, {2, 5, 9, 14}
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += max(seconds, 60.0)

    began, cpu = time.monotonic(), time.process_time()
    chosen = policy.complete(POLICY)
    waves = planning.waves(names, baselines, chosen)
    state = State.create(folder / str(size), chosen, ["simulated"], fleet, waves)
    planned = time.monotonic() - began
    kills = stops = 0
    while True:
        state = State(folder / str(size))  # as a new process would
        try:
            code = Driver(
                state, Quiet(), make_ansible=Hosts, clock=lambda: time.time() + clock[0], sleep=sleep
            ).forward()
        except Killed:
            kills += 1
            continue
        if code != errors.STOPPED:
            break
        stops += 1
        # Somebody repairs what failed, and resumes.
        Hosts.broken -= {host.name for host in state.hosts(states=["failed"])}
    seconds, used = time.monotonic() - began, time.process_time() - cpu
    shown = time.monotonic()
    rollout_data(state, False)
    shown = time.monotonic() - shown
    written = time.monotonic()
    report.write(state, report.fleet_data(state, whole=False))
    written = time.monotonic() - written
    unfinished = size - len(Hosts.converted)
    assert max(Hosts.converted.values()) == 1, "a finished host was done again"
    assert state.counts().get("converted", 0) == len(Hosts.converted), (
        "the state says something else than what happened"
    )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    disk = sum(file.stat().st_size for file in (folder / str(size)).rglob("state.db*")) / 1024**2
    print(
        f"{size:6} hosts, {len(waves)} waves, {Hosts.calls} runs, {kills} kills, {stops} closed gates resumed, "
        f"{unfinished} not converted (allowed), exit code {code}: "
        f"{seconds:.1f} s ({planned:.2f} s to plan, {shown:.2f} s for status, {written:.1f} s for the "
        f"report beside it), {used:.1f} CPU-s = "
        f"{1000 * used / size:.2f} ms a host, {memory:.0f} MiB peak, state {disk:.1f} MiB"
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for size in [int(word) for word in sys.argv[1:]] or [1000, 10000]:
            simulate(size, Path(folder))


if __name__ == "__main__":
    main()
