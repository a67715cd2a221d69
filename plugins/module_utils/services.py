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
STEADY = 15.0  # seconds that it has to stay what it is then: a failing import of vllm or torch takes that long


def _state(unit: str) -> str:
    result = commands.run(["systemctl", "is-active", "--", unit], timeout=30)
    return result.stdout.strip() or result.outcome(lines=1)


def _systemctl(unit: str) -> list[str]:
    """systemctl with the right to restart: the environment's owner, who runs installers, mostly has it through sudo."""
    allowed = ["sudo", "--non-interactive", "--list", "systemctl", "restart", "--", unit]
    if os.geteuid() != 0 and commands.run(allowed, timeout=30).ok:
        return ["sudo", "--non-interactive", "systemctl"]
    return ["systemctl", "--no-ask-password"]


def _process(unit: str) -> str:
    """What changes when systemd starts a unit anew by itself (Restart=always): such a unit is `active` in between."""
    shown = commands.run(["systemctl", "show", "--property=MainPID,NRestarts", "--", unit], timeout=30)
    return shown.stdout if shown.ok else ""


def _settled(unit: str, settle: float) -> str:
    """The state of a unit once it is no longer starting."""
    until = time.monotonic() + settle
    state = _state(unit)
    while state == "activating" and time.monotonic() < until:
        time.sleep(0.5)
        state = _state(unit)
    return state


def failures(told: list[dict[str, Any]]) -> list[str]:
    """The errors of what `restart` gives, each with its unit."""
    return [f"{unit['name']}: {unit['error']}" for unit in told if unit["error"]]


def restart(units: list[str], settle: float = SETTLE, steady: float = STEADY) -> list[dict[str, Any]]:
    """Restart each unit; for each its name, state, and the error that an operator has to know, or "".

    All are watched together, so that more units take no longer.
    """
    told: list[dict[str, Any]] = []
    for name in units:
        result = commands.run([*_systemctl(name), "restart", "--", name], timeout=RESTART_TIMEOUT)
        error = "" if result.ok else result.outcome(lines=5)
        told.append({"name": name, "state": _settled(name, 0 if error else settle), "error": error})
    processes = {name: _process(name) for name in units}
    if any(not unit["error"] and unit["state"] == "active" for unit in told):
        time.sleep(steady)
    for unit in told:
        if unit["error"]:
            continue
        if unit["state"] == "active":
            unit["state"] = _state(unit["name"])
        see = f"see: journalctl --unit {unit['name']}"
        if unit["state"] != "active":
            unit["error"] = f"expected active after its restart, found {unit['state']}; {see}"
        elif _process(unit["name"]) != processes[unit["name"]]:
            unit["error"] = f"expected the process of its restart, found another: it keeps ending; {see}"
    return told
