# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import services


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
        f"#!/bin/sh\ncd '{tmp_path}'\n[ $1 = restart ] && exit {restarted}\nhead -n 1 states\n"
        "[ $(wc -l < states) -gt 0 ] && { tail -n +2 states > rest; mv rest states; }\nexit 0\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    told = services.restart(["olmocr.service"], settle=5, steady=0)
    assert [unit["name"] for unit in told] == ["olmocr.service"]
    assert (told[0]["error"] == "") if not error else (error in told[0]["error"])
