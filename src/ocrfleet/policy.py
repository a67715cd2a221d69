# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy file: read, held against its schema, with every default filled in."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import jmespath
import yaml
from jmespath.exceptions import JMESPathError

from ocrfleet.errors import FleetError
from ocrfleet.text import one_line

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


_KINDS = {
    "string": "a text",
    "number": "a number",
    "integer": "a whole number",
    "array": "a list",
    "object": "a mapping",
}


def in_words(rules: dict[str, Any]) -> str:
    """What a rule of the schema expects, as it says itself, or else as follows from it."""
    if "expected" in rules:
        return str(rules["expected"])
    if "enum" in rules:
        return f"one of {', '.join(rules['enum'])}"
    text = _KINDS[rules["type"]]
    text += " that is not empty" if rules.get("minLength") else ""
    return text + (f" from {rules['minimum']} up" if "minimum" in rules else "")


def _sentence(error: jsonschema.ValidationError) -> list[str]:
    where = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        return list(_unknown_names(error.instance, dict(error.schema), f"{where}." if where else ""))
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return [f'{where}: expected the setting "{name}" as well, found none; add it' for name in missing]
    found = one_line(json.dumps(error.instance, default=str, ensure_ascii=False))
    return [f"{where or 'the policy'}: expected {in_words(dict(error.schema))}, found {found}"]


def _every_window(policy: Policy) -> Iterator[dict[str, Any]]:
    yield from policy["windows"]
    for group in policy["groups"].values():
        yield from group.get("windows", [])


def _inner(value: Any) -> Iterable[tuple[Any, Any]]:
    """What a mapping or a list holds, each by its name or number."""
    return value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()


def _no_numbers(value: Any, where: str) -> Iterator[str]:
    """YAML and Python's JSON have numbers that are none, and they pass every limit of a schema."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where}: expected a number, found {value}"
    for name, entry in _inner(value):
        yield from _no_numbers(entry, f"{where}.{name}")


def _whole(value: Any) -> Any:
    """1.0 is an integer to a schema, and none to Python."""
    if isinstance(value, dict):
        return {name: _whole(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_whole(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _no_variables(value: Any, where: str) -> Iterator[str]:
    """YAML has dates, among others, which neither the rollout's state nor a file of variables can hold."""
    if isinstance(value, dict):
        names = [name for name in value if not isinstance(name, str)]
        if names:
            yield f"{where}: expected names that are text; found {', '.join(map(str, names))}; put it into quotes"
    elif not isinstance(value, (str, int, float, list, type(None))):
        yield f"{where}: expected text, a number, a list or a mapping; found {value}; put it into quotes"
    for name, entry in _inner(value):
        yield from _no_variables(entry, f"{where}.{name}")


def _beyond_the_schema(policy: Policy) -> Iterator[str]:
    for name, value in policy.items():
        if name != "variables":
            yield from _no_numbers(value, name)
    yield from _no_variables(policy["variables"], "variables")
    if "drain" in policy["hooks"] and "undrain" not in policy["hooks"]:
        yield "hooks: expected undrain beside drain, found none; every host would stay out of service"
    if "undrain" in policy["hooks"] and "drain" not in policy["hooks"]:
        yield "hooks: expected drain beside undrain, found none; undrain is called for hosts that were drained"
    if policy["workers"] and policy["shards"] != 1:
        yield "shards: expected none beside workers, which do one each; name a worker twice for two"
    for gate in policy["gates"]:
        try:
            jmespath.compile(gate["query"])
        except JMESPathError as error:
            yield f"gates: the query of {gate['name']} is no JMESPath: {' '.join(str(error).split())}"
        if gate.get("at_least", -math.inf) > gate.get("at_most", math.inf):
            yield (
                f"gates: expected of {gate['name']} at_least {gate['at_least']} to be no more than at_most "
                f"{gate['at_most']}; no host could reach that"
            )
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
    # Several rules may miss the same.
    problems = list(dict.fromkeys(sentence for error in found for sentence in _sentence(error)))
    policy: Policy = {}
    if not problems and isinstance(given, dict):
        for name, rule in rules["properties"].items():
            default = rule.get("default", rules["$defs"]["windows"]["default"])
            value = given.get(name, default)
            policy[name] = value if name == "variables" else _whole(value)
        problems = list(_beyond_the_schema(policy))
        policy["shards"] = len(policy["workers"]) or policy["shards"]
    if problems:
        raise FleetError(f"{source} is not right; nothing was touched. Correct this:\n- " + "\n- ".join(problems))
    return policy


def _given_twice(node: yaml.Node | None, where: str, seen: set[int]) -> Iterator[str]:
    """Keys that stand in one mapping more than once, where YAML's reader takes the last one."""
    if id(node) in seen:  # by another name
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, entry in enumerate(node.value):
            yield from _given_twice(entry, f"{where}{number}.", seen)
    if isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], list[str]] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                lines.setdefault((key.tag, key.value), []).append(str(key.start_mark.line + 1))
                yield from _given_twice(value, f"{where}{key.value}.", seen)
        for (_tag, name), found in lines.items():
            if len(found) > 1:
                yield f"{where}{name} in lines {', '.join(found[:-1])} and {found[-1]}"


def _read(text: str, path: str) -> object:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        # Before mappings that are merged in (<<), whose keys may stand beside others.
        twice = list(_given_twice(node, "", set()))
        if twice:
            raise FleetError(
                f"{path}: expected each setting once, found {'; '.join(twice)}; leave one of each, nothing was touched"
            )
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def load(path: str | None) -> Policy:
    if path is None:
        return complete({})
    try:
        given = _read(Path(path).read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise FleetError(f"expected a policy file at {path}: {error}") from error
    except yaml.YAMLError as error:
        raise FleetError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    return complete({} if given is None else given, path)
