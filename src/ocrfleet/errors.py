# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ends a command with a message instead of a traceback, and the exit codes."""

from __future__ import annotations

DONE = 0
WRONG_INPUT = 2
STOPPED = 3
PAUSED = 4
REFUSED = 5
INCOMPLETE = 6
STATE = 7

MEANING = {
    DONE: "every host has what was asked for",
    WRONG_INPUT: "wrong input (command line, policy, inventory); nothing was touched",
    STOPPED: "a gate is closed: hosts failed, or a figure was worse than allowed",
    PAUSED: "paused, aborted, or waiting for an approval or a maintenance window (with --no-wait)",
    REFUSED: "refused: another rollout is at work, or not finished",
    INCOMPLETE: "finished, but some hosts (as many as allowed) were not converted, or are out of service",
    STATE: "the state could not be read or written (a full disk, rights); nothing that was written is lost",
}


class FleetError(Exception):
    """A sentence for the operator: what was expected, what was found, what to do."""

    code = WRONG_INPUT


class Refused(FleetError):
    """Another rollout stands in the way."""

    code = REFUSED
