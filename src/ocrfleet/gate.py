# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the next wave may start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jmespath

from ocrfleet.policy import Policy, share
from ocrfleet.text import one_line

CONVERTED = ("converted", "unchanged")


@dataclass(frozen=True)
class Decision:
    """`reasons` are sentences; the gate is open when `closed` is false."""

    closed: bool
    reasons: tuple[str, ...] = ()


def figure_problems(evidence: Mapping[str, Any] | None, gates: list[dict[str, Any]]) -> list[str]:
    """One sentence for each figure that a host has not reached, or does not tell."""
    problems = []
    for gate in gates:
        try:
            said = _missed(jmespath.search(gate["query"], evidence or {}), gate)
        except Exception as error:  # such as 10**400: whatever a host says, it ends no driver
            said = f"{gate['query']} gives no number: {one_line(error) or type(error).__name__}"
        if said:
            problems.append(f"{gate['name']}: {said}")
    return problems


def _missed(found: Any, gate: dict[str, Any]) -> str:
    """Why a figure is not reached, or an empty text."""
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found):
        return f"expected a number from {gate['query']}, found {found!r:.80}"
    if "at_least" in gate and found < gate["at_least"]:
        return f"{found:g}, at least {gate['at_least']:g} is asked for"
    if "at_most" in gate and found > gate["at_most"]:
        return f"{found:g}, at most {gate['at_most']:g} is allowed"
    return ""


def decide(states: Mapping[str, str], canary: bool, policy: Policy) -> Decision:
    """Judge a wave by the state of each of its hosts: whatever is not known to be converted counts against it."""
    missing = sorted(host for host, state in states.items() if state not in CONVERTED)
    allowed = 0 if canary else share(policy["allowed_failures"], len(states), least=0)
    reasons = tuple(f"{host}: {states[host]}" for host in missing)
    return Decision(len(missing) > allowed, reasons)
