# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in two places must say the same in both."""

from __future__ import annotations

import ast
import re
import subprocess
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


def programs():
    """Every file of ours that somebody runs or imports."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.splitlines():
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            begins = path.read_bytes()[:600]
            if path.suffix in (".py", ".sh", ".js") or begins.startswith(b"#!"):
                yield name, begins.decode(errors="replace")


def test_every_program_has_its_licence():
    held = [
        "Copyright (c) 2026 The ocrfleet.gpu_stack contributors",
        "GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)",
        "SPDX-License-Identifier: GPL-3.0-or-later",
    ]
    assert [name for name, begins in programs() if not all(line in begins for line in held)] == []


DEFAULTS = {name: value for path in (ROOT / "roles").glob("*/defaults/main.yml") for name, value in load(path).items()}
# Where a role is used without the one whose variable it is, these say that it was not asked for.
NOT_ASKED = ("", None, False, "none")


def test_what_stands_in_for_another_roles_default_is_that_default():
    wrong = []
    for path in sorted((ROOT / "roles").glob("*/*/**/*.yml")):
        for name, given in re.findall(r"\b([a-z]\w+) \| default\(([^()]+?)(?:, true)?\)", path.read_text()):
            try:
                value = ast.literal_eval(given)
            except (SyntaxError, ValueError):
                continue
            if name in DEFAULTS and value not in NOT_ASKED and value != DEFAULTS[name]:
                wrong.append(f"{path.relative_to(ROOT)}: {name} | default({given}), its default is {DEFAULTS[name]!r}")
    assert wrong == []
