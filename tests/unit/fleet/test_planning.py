# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts go when."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from ocrfleet import planning, policy, windows
from ocrfleet.planning import Fleet

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=timezone.utc)  # a Wednesday
HOSTS = [f"h{number}" for number in range(1, 11)]


def sizes(baselines: dict[str, str], **settings: object) -> list[tuple[str, int, bool]]:
    found = planning.waves(HOSTS, baselines, policy.complete(settings))
    return [(wave.cohort, len(wave.hosts), wave.canary) for wave in found]


def test_waves_are_as_large_as_the_policy_says_and_the_last_size_repeats() -> None:
    same = dict.fromkeys(HOSTS, "a")
    assert sizes(same) == [("a", 1, True), ("a", 1, False), ("a", 5, False), ("a", 3, False)]
    assert sizes(same, waves=[4]) == [("a", 4, True), ("a", 4, False), ("a", 2, False)]


def test_a_host_that_differs_has_its_own_canary_and_those_that_are_silent_come_last() -> None:
    baselines = {**dict.fromkeys(HOSTS, "a"), "h3": "b"}
    del baselines["h1"]
    found = planning.waves(HOSTS, baselines, policy.complete({"waves": ["100%"]}))
    assert [(wave.cohort, wave.hosts, wave.canary) for wave in found] == [
        ("a", ("h2", "h4", "h5", "h6", "h7", "h8", "h9", "h10"), True),
        ("b", ("h3",), True),
        (planning.NO_ANSWER, ("h1",), True),
    ]


def batch(pending: list[str], down: list[str] = [], **settings: object) -> planning.Batch:  # noqa: B006 - not changed
    fleet = Fleet(HOSTS, {**{host: ["rack"] for host in HOSTS[:6]}, "h1": ["rack", "prod"], "h2": ["rack", "prod"]})
    return planning.next_batch(pending, down, fleet, policy.complete(settings), NOON)


@pytest.mark.parametrize(
    ("settings", "down", "expected"),
    [
        ({}, [], HOSTS),
        ({"at_once": 3}, [], ["h1", "h2", "h3"]),
        ({"at_once": 3}, ["h9", "h10"], ["h1"]),
        ({"forks": 2, "shards": 2}, [], ["h1", "h2", "h3", "h4"]),
        ({"groups": {"rack": {"at_once": 2}}}, [], ["h1", "h2", "h7", "h8", "h9", "h10"]),
        ({"groups": {"rack": {"at_once": 3}, "prod": {"at_once": 1}}}, [], ["h1", "h3", "h4", "h7", "h8", "h9", "h10"]),
        ({"groups": {"prod": {"at_once": 1}}}, ["h2"], ["h3", "h4", "h5", "h6", "h7", "h8", "h9", "h10"]),
        ({"apart": [["h1", "h7"], ["h8", "h9", "h10"]]}, [], ["h1", "h2", "h3", "h4", "h5", "h6", "h8"]),
    ],
)
def test_the_strictest_limit_wins(settings: dict, down: list[str], expected: list[str]) -> None:
    pending = [host for host in HOSTS if host not in down]
    assert list(batch(pending, down, **settings).hosts) == expected


def test_a_host_that_is_down_does_not_stand_in_its_own_way_but_in_that_of_others() -> None:
    settings = {"apart": [["h1", "h7"]], "at_once": 2, "groups": {"prod": {"at_once": 1}}}
    assert batch(["h1", "h2", "h7"], ["h1"], **settings).hosts == ("h1",)
    assert batch(["h3", "h7"], ["h1"], **settings).hosts == ("h3",)


def test_a_closed_window_holds_its_hosts_back_and_says_until_when() -> None:
    night = [{"from": "22:00", "to": "04:00"}]
    found = batch(HOSTS, groups={"rack": {"windows": night}})
    assert found.hosts == tuple(HOSTS[6:])
    alone = batch(HOSTS[:2], groups={"rack": {"windows": night}})
    assert (alone.hosts, alone.until) == ((), NOON.replace(hour=22))


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ({"from": "11:00", "to": "13:00"}, "2026-11-25T12:00"),
        ({"from": "11:00", "to": "12:00"}, "2026-11-26T11:00"),
        ({"from": "22:00", "to": "13:00"}, "2026-11-25T12:00"),
        ({"from": "22:00", "to": "13:00", "days": ["tue"]}, "2026-11-25T12:00"),
        ({"from": "22:00", "to": "13:00", "days": ["wed"]}, "2026-11-25T22:00"),
        ({"from": "08:00", "to": "09:00", "days": ["wed"]}, "2026-12-02T08:00"),
        ({"from": "20:00", "to": "23:00", "timezone": "Asia/Tokyo"}, "2026-11-25T12:00"),
        ({"from": "13:00", "to": "14:00", "timezone": "Europe/Berlin"}, "2026-11-25T12:00"),
    ],
)
def test_windows(window: dict, expected: str) -> None:
    opening = windows.opens([window], NOON).astimezone(timezone.utc)
    assert opening.strftime("%Y-%m-%dT%H:%M") == expected


@pytest.mark.parametrize(
    ("given", "minutes", "expected"),
    [
        ([{"from": "11:00", "to": "13:00"}], 60, "2026-11-25T12:00"),
        ([{"from": "11:00", "to": "12:30"}], 60, "2026-11-26T11:00"),
        ([{"from": "11:00", "to": "12:30"}, {"from": "12:30", "to": "13:30"}], 60, "2026-11-25T12:00"),
        ([{"from": "11:00", "to": "12:30"}, {"from": "12:40", "to": "14:00"}], 60, "2026-11-25T12:40"),
        ([{"from": "11:00", "to": "12:30"}], 120, None),
        # 2026-10-25: clocks go back an hour in Berlin, so that this window is five hours long and not four.
        ([{"from": "00:00", "to": "04:00", "days": ["sun"], "timezone": "Europe/Berlin"}], 300, "2026-10-24T22:00"),
    ],
)
def test_windows_that_hold_a_whole_run(given: list, minutes: float, expected: str | None) -> None:
    now = NOON if expected is None or "11-2" in expected else datetime(2026, 10, 24, 12, tzinfo=timezone.utc)
    opening = windows.opens(given, now, minutes)
    assert (opening and opening.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M")) == expected


def test_windows_that_leave_no_time_are_found() -> None:
    night, noon = {"from": "22:00", "to": "02:00"}, {"from": "11:00", "to": "13:00"}
    fleet = planning.Fleet(["a", "b", "c"], {"a": ["one"], "b": ["two"]})
    chosen = policy.complete({"windows": [night], "groups": {"one": {"windows": [noon]}, "two": {"windows": [night]}}})
    assert planning.never_open(fleet, chosen, NOON) == ["a"]
    assert planning.never_open(fleet, policy.complete({"windows": [night], "host_minutes": 300}), NOON) == [
        "a",
        "b",
        "c",
    ]
    assert planning.next_batch(["a"], [], fleet, chosen, NOON) == planning.Batch(())
