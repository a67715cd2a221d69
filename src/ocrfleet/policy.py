# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy file: read, held against its schema, with every default filled in."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import jmespath
import yaml
from jmespath.exceptions import JMESPathError

from ocrfleet.errors import FleetError

if TYPE_CHECKING:
    import jsonschema

Policy = dict[str, Any]


def schema() -> dict[str, Any]:
    return dict(json.loads(resources.files("ocrfleet").joinpath("policy.schema.json").read_text(encoding="utf-8")))


def share(value: int | str, total: int, least: int = 1) -> int:
    """A number, or a percentage of `total` rounded down as Ansible's `serial` does, but not below `least` hosts."""
    if isinstance(value, int):
        return value
    return max(least, math.floor(total * int(value.rstrip("%")) / 100))


def _unknown_names(value: Any, rules: dict[str, Any], where: str) -> Iterator[str]:
    known = rules.get("properties", {})
    for name in value:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            yield f"{where}{name} is no setting; {hint}"


def _sentence(error: jsonschema.ValidationError) -> list[str]:
    where = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        return list(_unknown_names(error.instance, dict(error.schema), f"{where}." if where else ""))
    wanted = error.schema.get("expected") or error.schema.get("description") or error.message
    return [f"{where or 'the policy'}: expected {wanted}; found {json.dumps(error.instance, default=str)}"]


def _every_window(policy: Policy) -> Iterator[dict[str, Any]]:
    yield from policy["windows"]
    for group in policy["groups"].values():
        yield from group.get("windows", [])


def _no_numbers(value: Any, where: str) -> Iterator[str]:
    """YAML and Python's JSON have numbers that are none, and they pass every limit of a schema."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where}: expected a number, found {value}"
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in inner:
        yield from _no_numbers(entry, f"{where}.{name}")


def _beyond_the_schema(policy: Policy) -> Iterator[str]:
    for name, value in policy.items():
        if name != "variables":
            yield from _no_numbers(value, name)
    if "drain" in policy["hooks"] and "undrain" not in policy["hooks"]:
        yield "hooks: expected undrain beside drain, found none; every host would stay out of service"
    if policy["workers"] and policy["shards"] != 1:
        yield "shards: expected none beside workers, which do one each; name a worker twice for two"
    for gate in policy["gates"]:
        try:
            jmespath.compile(gate["query"])
        except JMESPathError as error:
            yield f"gates: the query of {gate['name']} is no JMESPath: {' '.join(str(error).split())}"
    for window in _every_window(policy):
        try:
            ZoneInfo(window.get("timezone", "UTC"))
        except (KeyError, ValueError, OSError):
            yield f"windows: expected a time zone such as Europe/Berlin, found {window['timezone']}"


def complete(given: object, source: str = "the policy") -> Policy:
    """A policy with all defaults. Raises FleetError that names everything that is wrong."""
    # Here, since it may take most of a second (a checker of web addresses builds its grammar), for few commands.
    import jsonschema

    rules = schema()
    found = sorted(jsonschema.Draft202012Validator(rules).iter_errors(given), key=lambda error: list(error.path))
    problems = [sentence for error in found for sentence in _sentence(error)]
    policy: Policy = {}
    if not problems and isinstance(given, dict):
        for name, rule in rules["properties"].items():
            default = rule.get("default", rules["$defs"]["windows"]["default"])
            policy[name] = given.get(name, default)
        problems = list(_beyond_the_schema(policy))
        policy["shards"] = len(policy["workers"]) or policy["shards"]
    if problems:
        raise FleetError(f"{source} is not right; nothing was touched.\n- " + "\n- ".join(problems))
    return policy


def load(path: str | None) -> Policy:
    if path is None:
        return complete({})
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FleetError(f"expected a policy file at {path}: {error}") from error
    except yaml.YAMLError as error:
        raise FleetError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    return complete({} if given is None else given, path)
