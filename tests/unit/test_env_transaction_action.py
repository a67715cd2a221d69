# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import subprocess
import sys
from typing import Any
from unittest import mock

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.ocrfleet.gpu_stack.plugins.action import env_transaction as action
from ansible_collections.ocrfleet.gpu_stack.plugins.modules import env_transaction as module


def owner(**changes: Any) -> dict[str, Any]:
    me = os.getpid()
    return {"controller": action.controller(), "pid": me, "started": action.started(me), **changes}


def ended() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({}, False),
        ({"started": "1"}, True),  # the number was given to another process since
        ({"pid": ended()}, True),
        ({"pid": None}, True),
        ({"controller": "elsewhere"}, False),  # cannot be seen from here
    ],
)
def test_whether_a_run_has_ended(changes: dict[str, Any], gone: bool) -> None:
    assert action.gone(owner(**changes)) is gone


def test_a_process_that_is_only_waited_for_works_no_more() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert action.started(process.pid) == ""
    finally:
        process.wait()
        process.stdout.close()


class Met(action.ActionModule):
    """The plugin, with what the module says of the owners that it meets one after the other."""

    def __init__(self, owners: list[dict[str, Any]]) -> None:
        task = mock.Mock(async_val=0, check_mode=False, args={"action": "begin"}, delegate_to=None)
        super().__init__(task, mock.Mock(), mock.Mock(check_mode=False), mock.Mock(), mock.Mock(), mock.Mock())
        self.owners = owners
        self.asked: list[str | None] = []

    def _execute_module(self, *_args: Any, **settings: Any) -> dict[str, Any]:
        self.asked.append(settings["module_args"].get("owner_gone"))
        if not self.owners:
            return {"changed": True}
        return {"failed": True, "contested": self.owners.pop(0)}


def test_each_dead_run_that_is_met_is_taken_over_from_and_a_living_one_is_not() -> None:
    first, second = owner(pid=ended(), host="a"), owner(pid=ended(), host="b")
    keys = [action.journal.key(dead) for dead in (first, second)]
    plugin = Met([first, second])
    assert plugin.run(None, {}) == {"changed": True}
    assert plugin.asked == [None, *keys]
    plugin = Met([first, owner(), second])
    assert plugin.run(None, {})["contested"] == owner()
    assert plugin.asked == [None, keys[0]]


def test_a_module_that_does_not_believe_it_is_not_asked_for_ever() -> None:
    dead = owner(pid=ended())
    plugin = Met([dead] * 9)
    assert plugin.run(None, {})["failed"]
    assert len(plugin.asked) == 2


def test_a_task_that_outlived_its_run_begins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = mock.Mock(pid=ended())
    monkeypatch.setattr(action.multiprocessing, "parent_process", lambda: parent)
    plugin = Met([])
    with pytest.raises(AnsibleActionFail, match="has ended"):
        plugin.run(None, {})
    assert not plugin.asked
    parent.pid = os.getppid()
    assert plugin.run(None, {}) == {"changed": True}


@pytest.mark.parametrize(
    ("proof", "told"),
    [
        ({"equal": True}, None),
        (
            {
                "equal": False,
                "damaged": ["torch 2.8.0: torch/x.so: no such file"],
                "differences": [],
                "torch": {
                    "found": {"metadata": None, "version": None, "cuda": None},
                    "baseline": {"metadata": "2.8.0", "version": "2.8.0+cu128", "cuda": "12.8"},
                },
                "repair": "uv pip install torch==2.8.0",
            },
            "torch/x.so.*torch version None, was 2.8.0.cu128.*torch cuda None, was 12.8.*uv pip install torch==2.8.0",
        ),
    ],
)
def test_a_restore_does_not_hide_its_failure(proof: dict[str, Any], told: str | None) -> None:
    if told is None:
        module.refuse_unequal({"proof": proof})
        return
    with pytest.raises(module.transaction.Refused, match=told) as raised:
        module.refuse_unequal({"changed": True, "proof": proof})
    assert raised.value.details["proof"] is proof
