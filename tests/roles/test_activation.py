# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The drop-ins of services come and go with what they name. systemd cannot be had here: systemctl is a stand-in."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import ad_hoc
import yaml

ROOT = Path(__file__).resolve().parents[2]


def play(folder: Path, tasks: str) -> str:
    """Run one file of the role's tasks; what systemctl was asked for."""
    (folder / "bin").mkdir(exist_ok=True)
    asked = folder / "asked"
    asked.write_text("")
    (folder / "bin/systemctl").write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    (folder / "bin/systemctl").chmod(0o755)
    include = {"ansible.builtin.include_role": {"name": "ocrfleet.gpu_stack.activation", "tasks_from": tasks}}
    (folder / "play.yml").write_text(
        yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": [include]}])
    )
    variables = {
        "ansible_python_interpreter": sys.executable,
        "stack_environment": str(folder / "env"),
        "activation_become": False,
        "activation_services": ["olmocr"],
        "__activation": {"systemd": True, "drop_in": "[Service]\n"},
        "__activation_folder": str(folder / "units/olmocr.service.d"),
    }
    path = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    arguments = ("-i", "localhost,", "-c", "local", "-e", json.dumps(variables), folder / "play.yml")
    code, said = ad_hoc.play(folder, *arguments, variables=path)
    assert code == 0, said
    return asked.read_text()


def test_a_drop_in_goes_with_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "units").mkdir()
    folder = tmp_path / "units/olmocr.service.d"
    named = tmp_path / "env/etc/ocrfleet/flashinfer.env"
    named.parent.mkdir(parents=True)
    named.touch()
    assert "daemon-reload" in play(tmp_path, "drop_ins")
    (folder / "10-own.conf").touch()
    assert play(tmp_path, "remove_drop_ins") == "", "the environment has what it names"
    assert (folder / "50-ocrfleet-flashinfer.conf").read_text() == "[Service]\n"
    named.unlink()
    assert "daemon-reload" in play(tmp_path, "remove_drop_ins")
    assert [path.name for path in folder.iterdir()] == ["10-own.conf"]


def test_nothing_outside_the_environment_is_written_before_the_candidate_has_passed() -> None:
    tasks = yaml.safe_load((ROOT / "roles/flashinfer/tasks/apply.yml").read_text())
    names = [task["name"] for task in tasks]
    order = [
        "Verify the candidate",
        "Let the services read what they are started with",
        "Make the candidate the environment",
    ]
    assert [name for name in names if name in order] == order
    start = yaml.safe_load((ROOT / "roles/flashinfer/tasks/start.yml").read_text())
    assert start[-1]["ansible.builtin.import_role"]["tasks_from"] == "start_file"
    written = yaml.safe_load((ROOT / "roles/activation/tasks/start_file.yml").read_text())
    assert [task["name"] for task in written] == ["Write what OlmOCR's vllm is started with"]
