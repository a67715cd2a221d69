# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands, services


@pytest.mark.parametrize(
    ("restarted", "states", "error"),
    [
        (0, "active", ""),
        (0, "activating active active", ""),
        (0, "active failed", "found failed"),
        (0, "inactive", "found inactive"),
        (1, "failed", "exit code 1"),
    ],
)
def test_a_service_has_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarted: int, states: str, error: str
) -> None:
    # systemd cannot be had here: a stand-in for systemctl answers with the given states in turn, the last one on.
    (tmp_path / "states").write_text("\n".join(states.split()))
    tool = tmp_path / "systemctl"
    tool.write_text(
        f"#!/bin/sh\ncd '{tmp_path}'\n[ $1 = --no-ask-password ] && shift\n"
        f"[ $1 = restart ] && exit {restarted}\nhead -n 1 states\n"
        "[ $(wc -l < states) -gt 0 ] && { tail -n +2 states > rest; mv rest states; }\nexit 0\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    told = services.restart(["olmocr.service"], settle=5, steady=0)
    assert [unit["name"] for unit in told] == ["olmocr.service"]
    assert (told[0]["error"] == "") if not error else (error in told[0]["error"])


@pytest.mark.parametrize(
    ("processes", "error"),
    [(["MainPID=7", "MainPID=7"], ""), (["MainPID=7", "MainPID=8"], "found another: it keeps ending; see: journalctl")],
)
def test_a_service_has_to_stay_for_fifteen_seconds_by_the_same_process(
    monkeypatch: pytest.MonkeyPatch, processes: list[str], error: str
) -> None:
    def run(argv: list[str], timeout: float) -> commands.Result:
        said = processes.pop(0) if "show" in argv else "active\n"
        return commands.Result(argv, 0, said, "", 0.0)

    waited: list[float] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(services.commands, "run", run)
    monkeypatch.setattr(services.time, "sleep", waited.append)
    (told,) = services.restart(["a.service"])
    assert waited == [15.0]
    assert (told["error"] == "") if not error else (error in told["error"])


@pytest.mark.parametrize(
    ("uid", "sudo", "asked"),
    [
        (0, 0, "systemctl --no-ask-password restart -- a.service"),
        (1000, 0, "sudo --non-interactive systemctl restart -- a.service"),
        (1000, 1, "systemctl --no-ask-password restart -- a.service"),  # polkit may still allow it
    ],
)
def test_the_owner_restarts_through_sudo(monkeypatch: pytest.MonkeyPatch, uid: int, sudo: int, asked: str) -> None:
    ran = []

    def run(argv: list[str], timeout: float) -> commands.Result:
        ran.append(" ".join(argv))
        return commands.Result(argv, sudo if "--list" in argv else 0, "active\n", "", 0.0)

    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(services.commands, "run", run)
    assert services.restart(["a.service"], steady=0)[0]["error"] == ""
    assert [line for line in ran if " restart " in line and "--list" not in line] == [asked]
