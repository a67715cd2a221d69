#!/usr/bin/python
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what a way back to a kept baseline changes in an environment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: package_drift
short_description: Tell what a way back to a kept baseline changes in an environment
version_added: 0.1.0
author:
  - The ocrfleet.gpu_stack contributors (@ocrfleet)
description:
  - Another release of FlashInfer, another method, and no FlashInfer at all start from the kept baseline without it.
    What was installed, moved or taken out in the environment since then is not in that baseline and would be lost.
  - Compares the environment with the baseline and with what the last change is recorded to have brought, and refuses
    where something else would be undone.
  - Reads files only; no Python of the environment is started, and nothing is changed.
options:
  environment:
    description: Prefix of the Python environment, made by conda or by venv.
    type: path
    required: true
  baseline:
    description: The tree of the kept baseline.
    type: path
    required: true
  plan:
    description:
      - What is to be added to the baseline and moved in it, as RV(ocrfleet.gpu_stack.uv_packages#module:plan) has it.
    type: dict
    default: {}
  discard:
    description: Whether what was changed since may be lost.
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in check mode; it only reads.
    support: full
  diff_mode:
    description: Shows the packages before and after.
    support: full
seealso:
  - module: ocrfleet.gpu_stack.uv_packages
  - module: ocrfleet.gpu_stack.env_transaction
"""

EXAMPLES = r"""
- name: See what the way back to the baseline loses
  ocrfleet.gpu_stack.package_drift:
    environment: /opt/conda/envs/olmocr-optimized
    baseline: /opt/conda/envs/.olmocr-optimized.gpu_stack/transactions/20261126T090000.000000Z-1a2b/tree
"""

RETURN = r"""
plan:
  description: What will differ from the environment as it is.
  returned: always
  type: dict
  contains:
    added:
      description: Packages that come, with C(name) and C(version).
      type: list
      elements: dict
    changed:
      description: Packages that move, with C(name), C(before) and C(after).
      type: list
      elements: dict
    removed:
      description: Packages that go, with C(name) and C(version).
      type: list
      elements: dict
lost:
  description: Those among them that were changed since FlashInfer came, with C(name), C(before) and C(after).
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    distributions,
    flashinfer_policy,
    package_drift,
    package_plan,
)


def planned(plan: dict) -> dict[str, str | None]:
    """Version by name of what a plan of uv_packages brings; None for what it takes out."""
    moves: dict[str, str | None] = {row["name"]: row["version"] for row in plan.get("added", [])}
    moves.update({row["name"]: row["after"] for row in plan.get("changed", [])})
    return {**moves, **dict.fromkeys(row["name"] for row in plan.get("removed", []))}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "environment": {"type": "path", "required": True},
            "baseline": {"type": "path", "required": True},
            "plan": {"type": "dict", "default": {}},
            "discard": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    live = distributions.versions(module.params["environment"])
    baseline = distributions.versions(module.params["baseline"])
    after = package_drift.result(baseline, planned(module.params["plan"]))
    brought = flashinfer_policy.brought(module.params["environment"])
    lost = package_drift.lost(live, baseline, brought, after)
    plan = package_plan.Plan(package_drift.changes(live, after), [], [], [], False)
    told = {
        "plan": {key: rows for key, rows in package_plan.describe(plan).items() if key != "repaired"},
        "lost": [vars(change) for change in lost],
        "diff": package_plan.diff(plan),
    }
    if lost and not module.params["discard"]:
        module.fail_json(msg=package_drift.told(lost), **told)
    module.exit_json(changed=bool(plan.changes), **told)


if __name__ == "__main__":
    main()
