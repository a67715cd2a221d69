# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a policy may say, and what an operator is told when it says something else."""

from __future__ import annotations

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
        ({"workers": ["ansible-runner worker"]}, "workers.0: expected a command as a list of words"),
        ({"workers": [["a"], ["b"]], "shards": 3}, "shards: expected none beside workers"),
        (["waves"], "expected"),
    ],
)
def test_each_mistake_is_named(given: object, said: str) -> None:
    with pytest.raises(FleetError) as error:
        policy.complete(given)
    assert said in str(error.value)
    assert "nothing was touched" in str(error.value)


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
