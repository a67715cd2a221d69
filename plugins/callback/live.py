# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show at the foot of the terminal what each host is at."""

from __future__ import annotations

DOCUMENTATION = r"""
name: live
type: notification
short_description: Show what each host is at, at the foot of the terminal
version_added: 0.1.0
author: The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Draws the task that is under way, the hosts that are at it, how long each has been, and how many packages and bytes
    are downloaded, below what the other callbacks print.
  - Does nothing where the output is no terminal, where C(TERM) is V(dumb), where C(CI) is set, or under ansible-runner
    and AWX, so a log is what it is without it.
requirements:
  - rich, on the control node; without it nothing is drawn
  - to be named in C(ANSIBLE_CALLBACKS_ENABLED) or in C(callbacks_enabled) of C(ansible.cfg), as this project does
"""

import atexit
import os
import sys
from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible_collections.ocrfleet.gpu_stack.plugins.plugin_utils import live_view


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "ocrfleet.gpu_stack.live"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.disabled = not live_view.wanted(sys.stdout, os.environ)
        if not self.disabled:
            self.view = live_view.View()
            self.screen = live_view.Screen(self.view, sys.stdout)
            self.screen.start()
            atexit.register(self.screen.stop)  # an interrupt ends a play without its statistics

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        name = str(task.get_name())
        role, _colon, rest = name.rpartition(" : ")
        self.view.start_task(role.rpartition(".")[2], rest)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self.view.start_host(host.get_name())

    def _end(self, result: Any) -> None:
        self.view.end_host(result._host.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        self._end(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._end(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._end(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._end(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self.screen.stop()
