# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGKILL at every journal state and at random moments, with a watcher on the environment's path all the while."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from harness import Host, Watcher, wait_for

KILLS = int(os.environ.get("FAULTS_KILLS", "200"))
SEED = int(os.environ.get("FAULTS_SEED", "20261123"))
TARGETS = ("playbook", "module", "uv", "everything")
# The states that a run goes through, by where it is made to fail.
STATES = {
    "never": ("freezing", "cloning", "open", "promoting", "promoted"),
    "before": ("freezing", "cloning", "open", "discarding", "discarded"),
    "after": ("freezing", "cloning", "open", "promoting", "promoted", "restoring", "restored"),
}


def plans() -> list[dict[str, Any]]:
    """The kills of a whole suite, drawn once from the seed."""
    draw = random.Random(SEED)  # noqa: S311 - repeatable on purpose
    found = []
    for number in range(KILLS):
        fail_at = draw.choice(list(STATES))
        by_state = number % 2 == 0
        found.append(
            {
                "fail_at": fail_at,
                "strategy": "in_place" if number % 5 == 4 else "staged",
                "target": draw.choice(TARGETS),
                "state": STATES[fail_at][(number // 2) % len(STATES[fail_at])] if by_state else "",
                "moment": draw.random(),
                "delay": draw.random() * 0.05,
            }
        )
    return found


def kill_once(host: Host, plan: dict[str, Any], length: float) -> str | None:
    """One killed run and the plain rerun after it; gives what went wrong, or "", or None when the run was faster."""
    settings = {"fail_at": plan["fail_at"], "kind": plan["strategy"]}
    watcher = Watcher(host)
    try:
        run = host.start(**settings)
        if plan["state"]:
            wait_for(host, (plan["state"],), run)
            time.sleep(plan["delay"])
        else:
            time.sleep(length * plan["moment"])
        until = time.monotonic() + length
        killed = run.poll() is None and host.kill(run, plan["target"])
        while not killed and run.poll() is None and time.monotonic() < until:
            time.sleep(0.001)  # no such process at this moment: the next one of its kind
            killed = host.kill(run, plan["target"])
        host.settle(run)
        if not killed:
            return None
        again = host.run(**settings)
    finally:
        seen = watcher.stop()
    wrong = []
    if plan["strategy"] == "staged" and seen["wrong"]:
        wrong.append(f"seen at the path: {seen['wrong']}")
    if seen["samples"] < 10:
        wrong.append(f"only {seen['samples']} samples")
    if (again.rc == 0) != (plan["fail_at"] == "never"):
        wrong.append(f"the rerun ended with {again.rc}: {again.said[-1500:]}")
    if not host.is_safe():
        wrong.append(f"neither the baseline nor the result; journal at {host.state()}")
    if plan["fail_at"] == "never" and not host.is_result():
        wrong.append("the rerun did not bring the result")
    return "; ".join(wrong)


@pytest.mark.fault("1 SIGKILL of module, uv, ansible-playbook, all")
def test_kills(make_host: Callable[..., Host], tally: Any) -> None:
    host = make_host()
    started = time.monotonic()
    assert host.run().rc == 0
    length = time.monotonic() - started
    lost = []
    hits: dict[str, int] = dict.fromkeys(TARGETS, 0)
    for number, plan in enumerate(plans()):
        host.make()
        wrong = kill_once(host, plan, length)
        if wrong is None:
            host.make()
            plan = {**plan, "target": "everything", "state": "open", "delay": 0.0}
            wrong = kill_once(host, plan, length)
        if wrong is None:
            lost.append(f"kill {number} {plan}: nothing was hit")
            continue
        hits[plan["target"]] += 1
        if not tally.add(not wrong):
            lost.append(f"kill {number} {plan}: {wrong}")
    print(f"hit: {hits}")
    assert not lost, "\n".join(lost)


@pytest.mark.fault("7 everything gone between two steps, control node restarted")
@pytest.mark.parametrize("strategy", ["staged", "in_place"])
@pytest.mark.parametrize("state", ["freezing", "cloning", "open", "promoting", "promoted"])
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
