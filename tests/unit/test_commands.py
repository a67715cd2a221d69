# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A time limit ends the wait, whatever the process does."""

from __future__ import annotations

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands


def test_a_child_that_outlives_the_time_limit_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # As a call that hangs in a driver: it holds the pipe, and in a session of its own SIGKILL does not reach it.
    monkeypatch.setattr(commands, "_LAST_SECONDS", 0.2)
    result = commands.run(["sh", "-c", "setsid sleep 30 & sleep 30"], timeout=0.5)
    assert result.timed_out
    assert not result.ok
    assert result.seconds < 20  # it would be 30
