# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What our modules document of themselves, read from their source without importing it."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = "ocrfleet.gpu_stack"


@lru_cache
def texts(name: str, kind: str = "modules") -> dict[str, str]:
    """DOCUMENTATION, EXAMPLES and RETURN of a module, or of a plugin of another kind."""
    tree = ast.parse((ROOT / "plugins" / kind / f"{name}.py").read_text(encoding="utf-8"))
    return {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


@lru_cache
def module_options(module: str) -> dict[str, dict]:
    """The documented options of a module, those of its fragments too."""
    documented = yaml.safe_load(texts(module)["DOCUMENTATION"])
    options = dict(documented.get("options", {}))
    for fragment in documented.get("extends_documentation_fragment", []):
        path = ROOT / "plugins/doc_fragments" / f"{fragment.rpartition('.')[2]}.py"
        text = re.search(r'DOCUMENTATION = r"""(.*?)"""', path.read_text(encoding="utf-8"), re.DOTALL)
        if text is None:
            raise ValueError(f"expected DOCUMENTATION in {path}, found none")
        options |= yaml.safe_load(text[1]).get("options", {})
    return options


def argument_spec(options: dict[str, dict]) -> dict[str, dict]:
    """Documented options as Ansible holds arguments against them."""
    held, spec = ("type", "elements", "choices", "required", "aliases"), {}
    for name, option in options.items():
        spec[name] = {key: option[key] for key in held if key in option}
        if "suboptions" in option:
            spec[name]["options"] = argument_spec(option["suboptions"])
    return spec


def module_problems(task: dict) -> list[str]:
    """What is wrong with the options of a task that calls one of our modules."""
    found = []
    for name in task:
        if not name.startswith(f"{COLLECTION}."):
            continue
        spec, given = argument_spec(module_options(name.removeprefix(f"{COLLECTION}."))), task[name] or {}
        for option, value in given.items():
            if option in spec and isinstance(value, str) and "{{" in value:
                spec[option] = {"type": "raw"}  # whatever the template gives
        found += [f"{name}: {wrong}" for wrong in ArgumentSpecValidator(spec).validate(given).error_messages]
    return found
