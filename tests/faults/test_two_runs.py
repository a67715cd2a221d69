# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two runs at once on one environment."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import stopping
from harness import Host


@pytest.mark.fault("5 two runs at once")
@pytest.mark.parametrize("state", ["freezing", "cloning", "open", "promoting", "promoted"])
def test_the_second_run_is_refused(make_host: Callable[..., Host], tally: Any, state: str) -> None:
    host = make_host()
    first, stopped = host.held(state)
    before = host.journal()
    second = host.run()
    refused = second.rc != 0 and "belongs to another run" in second.said and f"process {first.pid}" in second.said
    untouched = host.journal() == before
    stopping.send(stopped, signal.SIGCONT)
    said = host.end(first)
    survived = refused and untouched and first.returncode == 0 and host.is_result() and host.is_safe()
    assert tally.add(survived), [said, second.said, host.wrong()]


@pytest.mark.fault("5 two runs at once")
def test_an_installer_that_outlives_its_run_is_waited_for(make_host: Callable[..., Host], tally: Any) -> None:
    host = make_host()
    first = host.start(pause=8)
    until = time.monotonic() + 60
    while not (any("install.py" in command for command in host.processes(first).values()) and host.is_locked()):
        assert time.monotonic() < until, "the installer never started"
        time.sleep(0.05)
    host.kill(first, "playbook")
    host.settle(first)
    assert any("install.py" in command for command in host.processes(first).values()), "it did not outlive its run"
    again = host.run()
    assert tally.add(again.rc == 0 and host.is_result() and host.is_safe()), again.said
