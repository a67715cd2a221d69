# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask each host, reading only, which baseline it has."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocrfleet import evidence
from ocrfleet.ansible import Ansible
from ocrfleet.errors import FleetError
from ocrfleet.planning import NO_ANSWER
from ocrfleet.policy import Policy

PLAYBOOK = "ocrfleet.gpu_stack.survey"


@dataclass(frozen=True)
class Survey:
    """By host: the fingerprint of its packages' versions, the FlashInfer in it, and why one did not answer."""

    baselines: dict[str, str]
    flashinfer: dict[str, str]
    silent: dict[str, str]


def survey(inventory: list[str], hosts: list[str], policy: Policy, on_event: Callable[[str, str, str], None]) -> Survey:
    with tempfile.TemporaryDirectory(prefix="ocrfleet-") as folder:
        shape = (policy["forks"], policy["shards"], policy["workers"])
        ansible = Ansible(Path(folder), inventory, *shape, hosts, policy["task_minutes"])
        outcomes = ansible.run("survey", PLAYBOOK, hosts, policy["variables"], on_event, needs_evidence=False)
    if ansible.problems:
        raise FleetError("a worker does not work; nothing was touched.\n- " + "\n- ".join(ansible.problems))
    told: dict[str, dict[str, Any]] = {host: found.facts for host, found in outcomes.items() if found.facts}
    return Survey(
        {host: str(facts["versions_fingerprint"]) for host, facts in told.items()},
        {host: str(facts["installed"] or "none") for host, facts in told.items()},
        {host: found.message or found.state for host, found in outcomes.items() if host not in told},
    )


def is_as_planned(facts: dict[str, Any], cohort: str, handed_over: float) -> bool:
    """Whether a host is as it was when its rollout was planned: the packages of its cohort, and nothing under way.

    A transaction may have changed more than packages, so the last one has to be undone, or older than `handed_over`,
    when this rollout first had the host.
    """
    last = facts.get("transaction")
    if cohort == NO_ANSWER or facts.get("versions_fingerprint") != cohort or not isinstance(last, dict):
        return False
    if last.get("services"):  # they run on from what was replaced
        return False
    return (
        not last
        or last.get("state") in ("restored", "discarded")
        or (last.get("state") == "promoted" and evidence.began(last.get("id")) < handed_over)
    )
