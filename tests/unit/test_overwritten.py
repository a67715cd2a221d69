# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A package that writes over the files of another one is told, by file and by both names."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import distributions, overwritten
from made_environment import SITE, add_distribution, make_environment

FILE = f"{SITE}/tool/__init__.py"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param({"guest/__init__.py": "x"}, [], id="files of its own"),
        pytest.param({"tool/__init__.py": "one = 1\n"}, [], id="the same contents"),
        pytest.param({"tool/__init__.py": "one = 2\n"}, [f"{FILE} of tool was written over by guest"], id="same size"),
        pytest.param({"tool/../tool/__init__.py": "two"}, [f"{FILE} of tool was written over by guest"], id="a detour"),
    ],
)
def test_what_a_package_writes_over_is_named(tmp_path: Path, files: dict[str, str], said: list[str]) -> None:
    tree = make_environment(tmp_path / "env")
    before = overwritten.take(str(tree), distributions.installed(str(tree)))
    add_distribution(tree, "guest", "1.0", files)
    assert overwritten.told(str(tree), before, ["guest"]) == said


def test_what_no_record_tells_of_is_told_all_the_same(tmp_path: Path) -> None:
    tree = make_environment(tmp_path / "env")
    before = overwritten.take(str(tree), ["tool"])
    (tree / FILE).write_text("one = 3\n")
    assert overwritten.told(str(tree), before, []) == [
        f"{FILE} of tool was written over by something in the installation"
    ]
    (tree / FILE).unlink()
    assert len(overwritten.told(str(tree), before, [])) == 1
