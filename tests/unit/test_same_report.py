# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparison of the offline test sees what it is for."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "offline/same_report.py"
spec = importlib.util.spec_from_file_location("same_report", PATH)
assert spec and spec.loader
same_report = importlib.util.module_from_spec(spec)
spec.loader.exec_module(same_report)


def evidence(folder: Path, name: str, root: str, **changes: object) -> Path:
    content = {
        "environment": {"path": f"{root}/envs/olmocr-optimized"},
        "lock": "flashinfer-python==0.3.1 --hash=sha256:1",
        "plan": [{"name": "flashinfer-python", "version": "0.3.1", "required_by": [root]}],
        "checks": [{"name": "torch", "status": "passed", "seconds": len(root), "reason": f"{root}/bin/uv"}],
        "timings": {"verify": len(root)},
    }
    path = folder / name
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_places_and_times_may_differ(tmp_path: Path) -> None:
    pair = evidence(tmp_path, "a", "/srv/one"), evidence(tmp_path, "b", "/home/of/two")
    assert same_report.main(*pair) == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lock": "flashinfer-python==0.3.1 --hash=sha256:2"}, "lock:"),
        ({"plan": []}, "plan:"),
        ({"checks": [{"name": "torch", "status": "not_run", "reason": ""}]}, "checks:"),
    ],
)
def test_everything_else_must_not(tmp_path: Path, capsys: pytest.CaptureFixture, changes: dict, said: str) -> None:
    pair = evidence(tmp_path, "a", "/srv/one"), evidence(tmp_path, "b", "/home/of/two", **changes)
    assert same_report.main(*pair) == 1
    assert said in capsys.readouterr().err
