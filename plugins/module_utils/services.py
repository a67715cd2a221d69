# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restart the services that use an environment, and see that they came back."""

from __future__ import annotations

import os
import time
from typing import Any

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands

RESTART_TIMEOUT = 300  # seconds; systemd's own limit for a start is 90 by default
SETTLE = 30.0  # seconds that a unit may stay `activating` after its restart returned
STEADY = 1.0  # seconds after which a unit that is active must still be


def _state(unit: str) -> str:
    result = commands.run(["systemctl", "is-active", "--", unit], timeout=30)
    return result.stdout.strip() or result.outcome(lines=1)


def _systemctl(unit: str) -> list[str]:
    """systemctl with the right to restart: the environment's owner, who runs installers, mostly has it through sudo."""
    allowed = ["sudo", "--non-interactive", "--list", "systemctl", "restart", "--", unit]
    if os.geteuid() != 0 and commands.run(allowed, timeout=30).ok:
        return ["sudo", "--non-interactive", "systemctl"]
    return ["systemctl", "--no-ask-password"]


def restart(units: list[str], settle: float = SETTLE, steady: float = STEADY) -> list[dict[str, Any]]:
    """Restart each unit; for each its name, state, and the error that an operator has to know, or ""."""
    told = []
    for unit in units:
        result = commands.run([*_systemctl(unit), "restart", "--", unit], timeout=RESTART_TIMEOUT)
        error = "" if result.ok else result.outcome(lines=5)
        state = _state(unit)
        until = time.monotonic() + settle
        while not error and state == "activating" and time.monotonic() < until:
            time.sleep(0.5)
            state = _state(unit)
        if not error and state == "active":
            time.sleep(steady)  # a service that fails on its first import is `active` for a moment
            state = _state(unit)
        if not error and state != "active":
            error = f"expected active after its restart, found {state}; see: journalctl --unit {unit}"
        told.append({"name": unit, "state": state, "error": error})
    return told
