# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/rollback.yml is killed when the baseline is back and the services that use it are not restarted yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import oracle
import pytest
from harness import REPOSITORY, TRIES, UNIT, Host


def kill_the_way_back(host: Host, back: dict[str, Any], restarts: int) -> bool:
    """Promote, go back, and kill that after its exchange and so many restarts; False when it was faster."""
    assert host.run().rc == 0
    inode = host.kept()[-1].stat().st_ino
    host.forget_restarts()

    def is_there() -> bool:
        exchanged = host.environment.stat().st_ino == inode
        return exchanged and host.state() == "restoring" and host.restarts() == restarts

    run = host.start(**back)
    stopped = host.stop_when(run, is_there, step=True)
    host.kill(run, "everything") if stopped else host.end(run)
    host.settle(run)
    return bool(stopped)


@pytest.mark.fault("1 SIGKILL of everything, before services are restarted")
@pytest.mark.parametrize("restarts", [0, 1])
def test_services_after_a_killed_rollback(make_host: Callable[..., Host], tally: Any, restarts: int) -> None:
    host = make_host(service=True)
    host.call([str(host.environment / "bin/python"), "-I", "-c", oracle.ASK_TORCH])  # so that its caches are there
    host.before = oracle.tree(str(host.environment))
    back = {
        "playbook": str(REPOSITORY / "playbooks/rollback.yml"),
        "stack_environment": str(host.environment),
        "rollback_services": [UNIT],
    }
    assert any(kill_the_way_back(host, back, restarts) for _ in range(TRIES))
    assert host.is_baseline()
    again = host.run(**back)
    # One whose restart was cut off is restarted anew: whether it has the baseline nobody can tell.
    restarted = host.restarts()
    survived = again.rc == 0 and restarted == restarts + 1 and host.is_baseline() and host.is_safe()
    assert tally.add(survived), [again.said, restarted, host.wrong()]
