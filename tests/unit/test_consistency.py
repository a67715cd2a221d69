# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in two places must say the same in both."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import role_tables
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_argument_specs_are_the_same(role):
    folder = ROOT / "roles" / role
    options = load(folder / "meta/argument_specs.yml")["argument_specs"]["main"].get("options", {})
    defaults = load(folder / "defaults/main.yml") if (folder / "defaults/main.yml").exists() else {}
    assert {name: option.get("default") for name, option in options.items()} == defaults


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_explained(role):
    specs = load(ROOT / "roles" / role / "meta/argument_specs.yml")
    for name, option in specs["argument_specs"]["main"].get("options", {}).items():
        assert option.get("description") and option.get("type"), name


def test_the_uv_brought_to_hosts_is_the_pinned_one():
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    version = next(re.fullmatch(r"uv==(.+)", text.split(" ")[0])[1] for text in pinned if text.startswith("uv=="))
    assert load(ROOT / "roles/stack/vars/main/sources.yml")["__stack_uv_version"] == version


def test_every_module_is_linked_into_library():
    modules = {path.name for path in (ROOT / "plugins/modules").glob("*.py")}
    links = {path.name for path in (ROOT / "library").iterdir() if path.is_symlink() and path.exists()}
    assert links == modules


def test_the_action_group_names_every_module():
    modules = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))
    assert load(ROOT / "meta/runtime.yml")["action_groups"]["all"] == modules


def test_the_versions_of_collection_and_tools_are_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert load(ROOT / "galaxy.yml")["version"] == project["version"]


@pytest.mark.parametrize("role", ROLES)
def test_the_table_in_the_readme_is_what_the_argument_specs_say(role):
    readme = (ROOT / "roles" / role / "README.md").read_text(encoding="utf-8")
    assert role_tables.with_table(readme, role_tables.table(ROOT / "roles" / role)) == readme, "run `make tables`"
