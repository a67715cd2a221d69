# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe runs for real, in the Python that runs the tests."""

from __future__ import annotations

import sys

import packaging
import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import needs
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage


@pytest.fixture
def stage(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "bin/python").chmod(0o755)
    return Stage(str(tmp_path))


@pytest.mark.parametrize(
    ("requirement", "status", "installed"),
    [
        ("packaging", needs.SATISFIED, packaging.__version__),
        ("Packaging>=1; python_version >= '3'", needs.SATISFIED, packaging.__version__),
        ("packaging<1", "", packaging.__version__),
        ("no-such-package-anywhere[extra]>=2", "", None),
        ("packaging; python_version < '3'", None, None),
        ("packaging; extra == 'test'", None, None),
    ],
)
def test_each_requirement_is_held_against_this_python(stage, requirement, status, installed):
    found = needs.read(stage, [requirement])
    if status is None:
        assert found == []
    else:
        assert [(need.requirement, need.status, need.installed) for need in found] == [(requirement, status, installed)]


def test_what_is_to_come_counts_as_there(stage):
    found = needs.read(stage, ["No_Such.Package>=2", "no-such-package>3"], {"no-such-package": "2.5"})
    assert [(need.status, need.installed) for need in found] == [("satisfied", "2.5"), ("", "2.5")]


def test_build_requirements_are_read_from_the_project_file(stage, tmp_path):
    project = tmp_path / "pyproject.toml"
    project.write_text('[build-system]\nrequires = ["packaging>=1", "no-such-package-anywhere==0.1.0b15"]\n')
    assert [(need.name, need.status) for need in needs.read(stage, str(project))] == [
        ("packaging", "satisfied"),
        ("no-such-package-anywhere", ""),
    ]
    project.write_text("")
    assert [need.name for need in needs.read(stage, str(project))] == ["setuptools", "wheel"]


def test_a_python_that_cannot_answer_is_named(tmp_path):
    with pytest.raises(needs.Unreadable, match="cannot read requirements"):
        needs.read(Stage(str(tmp_path)), ["six"])
