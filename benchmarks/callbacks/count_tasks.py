# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count, over all hosts, the tasks that were executed, those of them that ran a module on the host, and the processes.

Ansible forks one process for each task of a host, also for a task that is skipped and for an include.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: count_tasks
type: notification
short_description: Count executed tasks, module calls and processes, for the benchmark of the fleet
description:
  - Writes the counts to the file that C(OCRFLEET_COUNTS) names.
requirements: []
"""

# These only bring tasks in, which are counted themselves.
INCLUDES = ("include_role", "include_tasks")
# Work of the control node alone.
LOCAL = (
    "check_inputs",
    "rollout_gate",
    "debug",
    "set_fact",
    "assert",
    "fail",
    "include_vars",
    "validate_argument_spec",
)


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "count_tasks"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.counts = {"executed": 0, "remote": 0, "forked": 0}

    def _count(self, result: Any, skipped: bool = False) -> None:
        task = result.task if hasattr(result, "task") else result._task
        action = task.action.rpartition(".")[2]
        if action == "meta":
            return
        self.counts["forked"] += 1
        if skipped or action in INCLUDES:
            return
        self.counts["executed"] += 1
        # A report of which nothing is new is only shown.
        shown = action == "report_files" and "invocation" not in result._result
        if action not in LOCAL and not shown and task.delegate_to != "localhost":
            self.counts["remote"] += 1

    def v2_runner_on_ok(self, result: Any) -> None:
        self._count(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._count(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._count(result, skipped=True)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        Path(os.environ["OCRFLEET_COUNTS"]).write_text(json.dumps(self.counts))
