# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation tells people to type exists, and takes what they are told to give it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from documented_commands import COMMANDS, ROOT, problems_of


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda text: text[:80])
def test_a_documented_command_is_one_that_there_is(page, line):
    assert problems_of(line) == [], page


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("make nonsense", "make nonsense: no such target"),
        ("make site FLASHINFER=pypi", "FLASHINFER: the Makefile reads no such variable"),
        ("ansible-playbook playbooks/nowhere.yml", "there is no playbook playbooks/nowhere.yml"),
        ("ansible-playbook ocrfleet.gpu_stack.nowhere", "there is no playbook ocrfleet.gpu_stack.nowhere"),
        ("ansible-playbook -i inventories/nowhere site.yml", "there is no inventory inventories/nowhere"),
        ("ansible-playbook site.yml -e fi_methode=pypi", "fi_methode is no variable"),
        ("ansible-playbook site.yml -e fi_method=magic", "value of fi_method must be one of"),
        ("ansible-playbook site.yml -e verify_timeout=long", "argument 'verify_timeout' is of type"),
        ("ansible-playbook site.yml -e flashinfer_takeover=perhaps", "argument 'flashinfer_takeover' is of type"),
        ("""ansible-playbook site.yml -e '{"verify_smoke_env": 3}'""", "argument 'verify_smoke_env' is of type"),
        ("ansible-playbook site.yml --chek", "unrecognized arguments: --chek"),
        ("ansible all -m ocrfleet.gpu_stack.nothing -a x=1", "there is no module ocrfleet.gpu_stack.nothing"),
        (
            "ansible all -m ocrfleet.gpu_stack.env_transaction -a 'environment=/e action=undo'",
            "value of action must be one of",
        ),
        ("ansible all -m ocrfleet.gpu_stack.env_transaction -a environment=/e", "missing required arguments: action"),
        (
            "ansible all -m ocrfleet.gpu_stack.gpu_smoke -a 'environment=/e timeout=long'",
            "argument 'timeout' is of type",
        ),
        ("ocrfleet plan -p policy.yml", "required: -i/--inventory"),
        ("ocrfleet status --q states", "unrecognized arguments: --q"),
        ("ocrfleet halt", "invalid choice: 'halt'"),
        ("python3 tools/nothing.py", "there is no tools/nothing.py"),
        ("curl https://example.com", "curl is not known here"),
    ],
)
def test_a_wrong_command_would_be_found(line, expected):
    assert any(expected in problem for problem in problems_of(line))


def test_the_documented_playbooks_pass_the_syntax_check():
    named = {
        name
        for _, line in COMMANDS
        if "ansible-playbook" in line
        for name in re.findall(r"\S+\.yml|ocrfleet\.\S+", line)
    }
    assert len(named) > 10
    # One call for all: most of what one takes is Ansible's start. It names the playbook that it stumbles over.
    command = [Path(sys.executable).with_name("ansible-playbook"), "--syntax-check", "-i", "localhost,", *sorted(named)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
