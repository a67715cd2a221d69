# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module cuda_link: the one link that names a toolkit, turned in one step or not at all."""

from __future__ import annotations

from pathlib import Path

import ad_hoc
import pytest


@pytest.fixture
def toolkits(tmp_path: Path) -> Path:
    for version in ("12.4", "12.8"):
        (tmp_path / f"cuda-{version}").mkdir()
    return tmp_path


def linked(path: Path, target: Path, *options: str) -> dict:
    return ad_hoc.run("cuda_link", {"path": str(path), "target": str(target)}, *options)


def turned(folder: Path, version: str, *options: str) -> dict:
    return linked(folder / "cuda", folder / f"cuda-{version}", *options)


def test_a_link_is_made_and_turned_and_then_stays(toolkits):
    assert [turned(toolkits, version)["changed"] for version in ("12.4", "12.8", "12.8")] == [True, True, False]
    assert (toolkits / "cuda").readlink() == toolkits / "cuda-12.8"
    assert not list(toolkits.glob("*.ocrfleet"))


def test_check_mode_tells_and_leaves_it(toolkits):
    (toolkits / "cuda").symlink_to(toolkits / "cuda-12.4")
    found = turned(toolkits, "12.8", "--check")
    assert (found["changed"], found["before"]) == (True, str(toolkits / "cuda-12.4"))
    assert (toolkits / "cuda").readlink() == toolkits / "cuda-12.4"


def test_a_folder_is_not_taken_away(toolkits):
    (toolkits / "cuda").mkdir()
    assert "expected a link or nothing" in turned(toolkits, "12.8")["msg"]
    assert (toolkits / "cuda").is_dir()


def test_a_folder_that_is_the_target_is_as_wanted(toolkits):
    found = linked(toolkits / "cuda-12.8", toolkits / "cuda-12.8")
    assert found["changed"] is False


def test_where_no_link_can_be_made_says_so(toolkits):
    path = toolkits / "not-there" / "cuda"
    found = linked(path, toolkits / "cuda-12.8")
    assert found["msg"] == f"cannot make {path} a link to {toolkits / 'cuda-12.8'}: No such file or directory"
