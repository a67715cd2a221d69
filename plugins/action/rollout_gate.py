# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold a wave back when hosts of earlier waves were not converted. Runs on the control node; no host is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.plugins.action import ActionBase

SHOWN = 10


def earlier(every: list[str], batch: list[str]) -> list[str]:
    """The hosts of the batches before this one. `serial` deals the hosts out in their order."""
    first = min((every.index(host) for host in batch), default=0)
    return every[:first]


def not_converted(
    hosts: Iterable[str], alive: set[str] | None, told: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Why each host counts as not converted. `alive` are the hosts that Ansible has not given up (None: unknown)."""
    found = {}
    for host in hosts:
        result = (told[host].get("__flashinfer_evidence") or {}).get("result")
        nothing_to_do = (told[host].get("__stack_machine") or {}).get("converged") is True
        if alive is not None and host not in alive:
            found[host] = "failed or was unreachable"
        elif result not in ("verified", None):
            found[host] = f"its evidence says {result}"
        elif result is None and not nothing_to_do:
            found[host] = "there is no evidence that it was converted"
    return found


class ActionModule(ActionBase):
    """See the module of this name for its documentation."""

    _requires_connection = False
    _VALID_ARGS = frozenset(("hosts", "allowed_failures"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        strategy = self._task.get_play().strategy
        if strategy not in ("linear", "ansible.builtin.linear"):
            result.update(
                failed=True,
                msg=f"expected the strategy linear, found {strategy}, under which waves overlap; set strategy: linear",
            )
            return result
        hosts = self._task.args.get("hosts")
        alive = None
        if hosts is None:
            hosts = earlier(list(task_vars["ansible_play_hosts_all"]), list(task_vars["ansible_play_batch"]))
            alive = set(task_vars["ansible_play_hosts"])
        missing = not_converted(hosts, alive, task_vars["hostvars"])
        allowed = int(self._task.args.get("allowed_failures", 0))
        result.update(changed=False, not_converted=missing)
        if len(missing) > allowed and not self._task.check_mode:
            lines = [f"{host}: {why}" for host, why in sorted(missing.items())][:SHOWN]
            more = len(missing) - len(lines)
            result.update(
                failed=True,
                msg=f"The gate is closed, no further host is touched: {len(missing)} of {len(hosts)} hosts were not "
                f"converted, {allowed} are allowed.\n- "
                + "\n- ".join(lines)
                + (f"\n- and {more} more" if more else ""),
            )
        return result
