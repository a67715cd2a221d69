# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SECURITY.md says of which roles root does something, all of them and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


def becomes(value: Any) -> list[Any]:
    """Each `become` in parsed tasks, however deep."""
    if isinstance(value, list):
        return [found for entry in value for found in becomes(entry)]
    if isinstance(value, dict):
        own = [value["become"]] if "become" in value else []
        return own + [found for entry in value.values() for found in becomes(entry)]
    return []


def rooted() -> set[str]:
    """The roles with a task that root does, always or where a variable says so."""
    files = [*ROOT.glob("roles/*/tasks/**/*.yml"), *ROOT.glob("roles/*/handlers/*.yml")]
    tasks = {file: becomes(yaml.safe_load(file.read_text(encoding="utf-8"))) for file in files}
    return {file.relative_to(ROOT / "roles").parts[0] for file, found in tasks.items() if any(found)}


def test_the_page_names_each_role_in_which_root_does_something() -> None:
    section = (ROOT / "SECURITY.md").read_text(encoding="utf-8").split("## Who does what")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)`", section, re.M)) == rooted()


def test_no_playbook_has_root_do_anything() -> None:
    """The table is of roles alone."""
    plays = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in ROOT.glob("playbooks/*.yml")]
    assert [found for found in becomes(plays) if found] == []
