# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a policy may say, and what an operator is told when it says something else."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocrfleet import policy
from ocrfleet.errors import FleetError


def test_an_empty_policy_is_one_canary_then_shares_and_no_failure() -> None:
    found = policy.complete({})
    assert (found["waves"], found["allowed_failures"]) == ([1, "10%", "50%", "100%"], 0)
    assert found["playbook"] == "ocrfleet.gpu_stack.site"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"wave": [1]}, "wave is no setting; did you mean waves?"),
        ({"groups": {"a": {"atonce": 1}}}, "groups.a.atonce is no setting; did you mean at_once?"),
        ({"waves": ["a lot"]}, 'waves.0: expected a number of hosts from 1 up, or a percentage such as "10%"'),
        ({"waves": [0]}, "found 0"),
        (
            {"windows": [{"from": "25:00", "to": "04:00"}]},
            'windows.0.from: expected a quoted time of day such as "22:30"',
        ),
        ({"windows": [{"from": "22:00", "to": "04:00", "timezone": "Mars/Base"}]}, "found Mars/Base"),
        ({"gates": [{"name": "speed", "query": "a..b", "at_least": 1}]}, "the query of speed is no JMESPath"),
        ({"gates": [{"name": "speed", "query": "a"}]}, "gates.0"),
        ({"hooks": {"drain": {"command": ["a"], "playbook": "b"}}}, "expected either a command"),
        ({"hooks": {"drain": {"playbook": "a", "timeout": 9}}}, "expected either a command"),
        ({"soak_minutes": float("nan")}, "soak_minutes: expected a number, found nan"),
        ({"gates": [{"name": "a", "query": "a", "at_least": float("nan")}]}, "gates.0.at_least: expected a number"),
        ({"hooks": {"drain": {"command": ["a"]}}}, "expected undrain beside drain"),
        ({"hooks": {"undrain": {"command": ["a"]}}}, "expected drain beside undrain"),
        (
            {"hooks": {"drain": {"command": ["a\0b"]}, "undrain": {"command": ["a"]}}},
            "hooks.drain.command.0: expected a word without the character NUL",
        ),
        ({"workers": [["a\0b"]]}, "workers.0.0: expected a word without the character NUL"),
        (
            {"gates": [{"name": "a", "query": "a", "at_least": 5, "at_most": 1}]},
            "gates: expected of a at_least 5 to be",
        ),
        (
            {"variables": {"a": [{"b": datetime.date(2026, 1, 1)}]}},
            "variables.a.0.b: expected text, a number, a list or a mapping; found 2026-01-01",
        ),
        ({"variables": {"a": b"x"}}, "variables.a: expected text"),
        ({"variables": {"a": {datetime.date(2026, 1, 1): 1}}}, "variables.a: expected names that are text"),
        ({"variables": {1: 2}}, "variables: expected names that are text; found 1"),
        ({"workers": ["ansible-runner worker"]}, "workers.0: expected a command as a list of words"),
        ({"workers": [["a"], ["b"]], "shards": 3}, "shards: expected none beside workers"),
        (["waves"], 'the policy: expected a mapping of settings, found ["waves"]'),
        (
            {"waves": 3},
            'waves: expected a list of numbers and percentages of hosts, such as [1, "10%", "100%"], found 3',
        ),
        ({"soak_minutes": "long"}, 'soak_minutes: expected a number from 0 up, found "long"'),
        ({"soak_minutes": -1}, "soak_minutes: expected a number from 0 up, found -1"),
        ({"forks": 2.5}, "forks: expected a whole number from 1 up, found 2.5"),
        ({"variables": []}, "variables: expected a mapping of names to values, such as {fi_method: pypi}, found []"),
        ({"playbook": True}, "playbook: expected the name or the file of a playbook, as a text, found true"),
        (
            {"hooks": {"undrain": {"command": "lb"}}},
            'hooks.undrain.command: expected a command as a list of words, such as [lb-ctl, drain, "{host}"], found',
        ),
        ({"hooks": {"undrain": {"command": ["a"], "timeout": 0}}}, "expected a number of seconds above 0, found 0"),
        (
            {"gates": [{"name": "speed", "query": "a"}]},
            "gates.0: expected a mapping with name, query, and at_least, at_most or both, found ",
        ),
        (
            {"gates": [{"query": "a", "at_least": 1}]},
            'gates.0: expected the setting "name" as well, found none; add it',
        ),
        ({"gates": [{"name": "", "query": "a", "at_least": 1}]}, "gates.0.name: expected a text that is not empty"),
        ({"gates": [{"name": "a", "query": "a", "at_least": True}]}, "gates.0.at_least: expected a number, found true"),
        (
            {"windows": [{"days": ["monday"], "from": "22:00", "to": "04:00"}]},
            'windows.0.days.0: expected one of mon, tue, wed, thu, fri, sat, sun, found "monday"',
        ),
        ({"groups": {"a": 3}}, "groups.a: expected a mapping with at_once, windows or both, found 3"),
        ({"apart": [["a", "a"]]}, "apart.0: expected a list of two or more different hosts, found "),
    ],
)
def test_each_mistake_is_named(given: object, said: str) -> None:
    with pytest.raises(FleetError) as error:
        policy.complete(given)
    assert said in str(error.value)
    assert "nothing was touched" in str(error.value)


def schemas(rules: Any, where: str = "policy") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each rule for a value, with where it stands."""
    if isinstance(rules, dict):
        if isinstance(rules.get("type"), str):
            yield where, rules
        rules = rules.items()
    for name, inner in rules if not isinstance(rules, list) else enumerate(rules):
        if isinstance(inner, (dict, list)) and name not in ("default", "anyOf"):
            yield from schemas(inner, f"{where}.{name}")


@pytest.mark.parametrize(("where", "rules"), list(schemas(policy.schema())))
def test_what_is_expected_is_said_in_words(where: str, rules: dict[str, Any]) -> None:
    """Of whatever value the schema has a rule for, by itself, not by a description or by Python's names of types."""
    assert re.match(r"(an?|the|one of|either an?) [a-z]", policy.in_words(rules)), where
    assert not policy.in_words(rules).endswith(".")


def test_one_mistake_is_told_once() -> None:
    with pytest.raises(FleetError) as error:
        policy.complete({"hooks": {"undrain": 3}})
    assert str(error.value).count("hooks.undrain: ") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("forks: 1\nwaves: [1]\nforks: 2\n", "forks in lines 1 and 3"),
        ("groups:\n  a: {at_once: 1}\n  a:\n    at_once: 2\n", "groups.a in lines 2 and 3"),
        ("gates:\n- name: a\n  query: b\n  'name': c\n", "gates.0.name in lines 2 and 4"),
        ("forks: 1\nforks: 1\nforks: 1\nshards: 1\nshards: 2", "forks in lines 1, 2 and 3; shards in lines 4 and 5"),
    ],
)
def test_a_key_given_twice_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "policy.yml"
    file.write_text(text)
    with pytest.raises(FleetError, match=re.escape(f"{file}: expected each setting once, found {said}; leave")):
        policy.load(str(file))


def test_a_key_may_stand_beside_one_that_is_merged_in(tmp_path: Path) -> None:
    file = tmp_path / "policy.yml"
    file.write_text("variables: {a: {b: &one {<<: &two {x: 1}, x: 2}}, c: {<<: *one, x: 3}, d: [*two, *one]}\n")
    assert policy.load(str(file))["variables"]["c"] == {"x": 3}


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "policy.yml").touch()
    assert policy.load(str(tmp_path / "policy.yml")) == policy.complete({})


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(FleetError) as error:
        policy.complete({"wave": 1, "forks": 0})
    assert str(error.value).count("\n- ") == 2


@pytest.mark.parametrize(
    ("value", "total", "least", "expected"),
    [(3, 100, 1, 3), ("10%", 100, 1, 10), ("10%", 5, 1, 1), ("5%", 19, 0, 0), ("5%", 20, 0, 1), ("0%", 100, 0, 0)],
)
def test_shares(value: int | str, total: int, least: int, expected: int) -> None:
    assert policy.share(value, total, least) == expected


def test_a_wave_goes_by_as_many_hosts_as_the_workers_take() -> None:
    assert policy.complete({"workers": [["a"], ["b"], ["b"]]})["shards"] == 3
    assert policy.complete({})["shards"] == 1


def test_a_whole_number_with_a_point_is_one() -> None:
    given = {
        "waves": [1.0, "10%"],
        "at_once": 2.0,
        "allowed_failures": 0.0,
        "groups": {"a": {"at_once": 1.0}},
        "forks": 1.0,
        "approve_after": [1.0],
        "soak_minutes": 0.5,
        "variables": {"a": 1.0},
    }
    assert json.dumps({name: policy.complete(given)[name] for name in given}) == json.dumps(
        {
            "waves": [1, "10%"],
            "at_once": 2,
            "allowed_failures": 0,
            "groups": {"a": {"at_once": 1}},
            "forks": 1,
            "approve_after": [1],
            "soak_minutes": 0.5,
            "variables": {"a": 1.0},
        }
    )
