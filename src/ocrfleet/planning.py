# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is converted when: pure functions from hosts and policy to waves, and from a wave to its next batch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from ocrfleet import windows
from ocrfleet.policy import Policy, share

NO_ANSWER = "no answer"


@dataclass(frozen=True)
class Wave:
    """Hosts that are converted between two gates. All have the baseline of `cohort`."""

    number: int
    cohort: str
    hosts: tuple[str, ...]
    canary: bool


@dataclass(frozen=True)
class Batch:
    """Hosts that may start now; where there are none, `until` is when a window opens (None: never by itself)."""

    hosts: tuple[str, ...]
    until: datetime | None = None


@dataclass
class Fleet:
    """Hosts in the inventory's order, and which groups each is in; others that are down may be among the groups."""

    hosts: list[str]
    groups: dict[str, list[str]] = field(default_factory=dict)

    @cached_property
    def members(self) -> frozenset[str]:
        return frozenset(self.hosts)

    @cached_property
    def sizes(self) -> Counter[str]:
        """How many hosts each group has."""
        return Counter(name for host in self.hosts for name in self.groups.get(host, []))


def cohorts(hosts: list[str], baselines: dict[str, str]) -> dict[str, list[str]]:
    """Hosts by baseline, the largest cohort first; hosts that did not answer come last."""
    found: dict[str, list[str]] = {}
    for host in hosts:
        found.setdefault(baselines.get(host, NO_ANSWER), []).append(host)
    return dict(sorted(found.items(), key=lambda item: (item[0] == NO_ANSWER, -len(item[1]), hosts.index(item[1][0]))))


def waves(hosts: list[str], baselines: dict[str, str], policy: Policy) -> list[Wave]:
    """Each cohort has its own waves and its own canary: what a canary shows holds only for its like."""
    planned: list[Wave] = []
    for cohort, members in cohorts(hosts, baselines).items():
        sizes = list(policy["waves"])
        at, step = 0, 0
        while at < len(members):
            size = share(sizes[min(step, len(sizes) - 1)], len(members))
            planned.append(Wave(len(planned) + 1, cohort, tuple(members[at : at + size]), step == 0))
            at, step = at + size, step + 1
    return planned


class Limits:
    """How many more hosts of each kind may go down, given those that are down."""

    def __init__(self, fleet: Fleet, policy: Policy, down: Iterable[str]) -> None:
        self.fleet = fleet
        self.policy = policy
        self.bounds = {
            name: share(group["at_once"], fleet.sizes[name])
            for name, group in policy["groups"].items()
            if "at_once" in group
        }
        self.total = share(policy["at_once"], len(fleet.hosts))
        self.apart: dict[str, list[int]] = {}
        for number, members in enumerate(policy["apart"]):
            for host in members:
                self.apart.setdefault(host, []).append(number)
        self.down = 0  # of this rollout's hosts; the others count for groups and what is kept apart
        self.used: Counter[str | int] = Counter()
        self.taken: set[str] = set()
        for host in down:
            self.take(host)

    def _kinds(self, host: str) -> list[str]:
        return [name for name in self.fleet.groups.get(host, []) if name in self.bounds]

    def allows(self, host: str) -> bool:
        # A host that is down already does not stand in its own way.
        own = int(host in self.taken)
        return (
            self.down - own < self.total
            and all(self.used[name] - own < self.bounds[name] for name in self._kinds(host))
            and not any(self.used[number] - own for number in self.apart.get(host, []))
        )

    def take(self, host: str) -> None:
        if host not in self.taken:
            self.taken.add(host)
            self.down += host in self.fleet.members
            self.used.update(self._kinds(host))
            self.used.update(self.apart.get(host, []))


def host_windows(host: str, fleet: Fleet, policy: Policy) -> list[list[dict[str, Any]]]:
    """The lists of windows that all have to be open for a host."""
    lists = [policy["windows"]]
    lists += [policy["groups"].get(name, {}).get("windows", []) for name in fleet.groups.get(host, [])]
    return [entries for entries in lists if entries]


def _opening(host: str, fleet: Fleet, policy: Policy, now: datetime) -> datetime | None:
    """When all windows of a host are open, each for as long as its run may take; None: not within a week."""
    lists = host_windows(host, fleet, policy)
    at, ends = now, now + timedelta(days=8)
    while at < ends:
        openings = [windows.opens(entries, at, policy["host_minutes"]) for entries in lists]
        found = [opening for opening in openings if opening is not None]
        if len(found) < len(openings):
            return None
        if max(found, default=at) == at:
            return at
        at = max(found)
    return None


def shut(hosts: Iterable[str], fleet: Fleet, policy: Policy, now: datetime) -> list[str]:
    """Hosts that have a window which is not open now."""
    at_all = {**policy, "host_minutes": 0}
    return [host for host in hosts if _opening(host, fleet, at_all, now) != now]


def never_open(fleet: Fleet, policy: Policy, now: datetime) -> list[str]:
    """Hosts whose windows leave no time within a week to convert them."""
    known: dict[str, bool] = {}
    shut = []
    for host in fleet.hosts:
        key = json.dumps(host_windows(host, fleet, policy), sort_keys=True)
        if key not in known:
            known[key] = _opening(host, fleet, policy, now) is None
        if known[key]:
            shut.append(host)
    return shut


def next_batch(pending: Iterable[str], down: Iterable[str], fleet: Fleet, policy: Policy, now: datetime) -> Batch:
    """As many of the pending hosts as limits, windows and the control node's processes let start together.

    Between two batches somebody may stop the rollout, so a batch holds no host that would only wait for its turn.
    """
    limits = Limits(fleet, policy, down)
    most = policy["forks"] * policy["shards"]
    chosen: list[str] = []
    until: datetime | None = None
    for host in pending:
        opening = _opening(host, fleet, policy, now)
        if opening is None:
            continue
        if opening > now:
            until = opening if until is None else min(until, opening)
        elif limits.allows(host):
            limits.take(host)
            chosen.append(host)
            if len(chosen) == most:
                break
    return Batch(tuple(chosen), None if chosen else until)
