# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Examples of modules can be copied: they parse, name options that there are, and pass Ansible's syntax check."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from documented import COLLECTION, ROOT, module_problems, texts

MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))


def tasks(module: str) -> list[dict]:
    return yaml.safe_load(texts(module)["EXAMPLES"])


@pytest.mark.parametrize("module", MODULES)
def test_examples_use_the_module_as_it_is(module):
    used = [name for task in tasks(module) for name in task]
    assert f"{COLLECTION}.{module}" in used
    assert [problem for task in tasks(module) for problem in module_problems(task)] == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"environment": "/e", "action": "status", "enviroment": "/e"}, "enviroment. Supported parameters include"),
        ({"environment": "/e"}, "missing required arguments: action"),
        ({"environment": "/e", "action": "undo"}, "value of action must be one of"),
        ({"environment": "/e", "action": "status", "services": {"a": 1}}, "argument 'services' is of type"),
    ],
)
def test_a_wrong_example_would_be_found(given, expected):
    assert any(expected in problem for problem in module_problems({f"{COLLECTION}.env_transaction": given}))


def test_all_examples_pass_the_syntax_check(tmp_path: Path):
    playbook = tmp_path / "examples.yml"
    play = {"hosts": "all", "gather_facts": False, "tasks": [task for module in MODULES for task in tasks(module)]}
    playbook.write_text(yaml.safe_dump([play], sort_keys=False), encoding="utf-8")
    command = [Path(sys.executable).with_name("ansible-playbook"), "--syntax-check", "-i", "localhost,", playbook]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
