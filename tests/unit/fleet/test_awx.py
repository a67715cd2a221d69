# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The AWX files name only what there is."""

from __future__ import annotations

from pathlib import Path

import yaml
from ansible_collections.ocrfleet.gpu_stack.plugins.action.check_inputs import ROLES, load_specs

ROOT = Path(__file__).resolve().parents[3]
FOUND = yaml.safe_load((ROOT / "awx/rollout.yml").read_text())
[WORKFLOW] = FOUND["workflow_job_templates"]
NODES = {node["identifier"]: node for node in WORKFLOW["related"]["workflow_nodes"]}


def test_the_playbooks_exist() -> None:
    assert all((ROOT / template["playbook"]).is_file() for template in FOUND["job_templates"])


def test_the_survey_asks_for_variables_with_their_choices() -> None:
    options = {name: option for role in load_specs(ROLES).values() for name, option in role.items()}
    for question in WORKFLOW["related"]["survey_spec"]["spec"]:
        option = options[question["variable"]]
        assert set(question.get("choices", [])) <= set(option.get("choices", question.get("choices", [])))


def test_every_node_runs_a_template_or_waits_for_somebody_and_leads_to_nodes() -> None:
    templates = [template["natural_key"] for template in FOUND["job_templates"]]
    for node in NODES.values():
        assert node.get("unified_job_template") in templates or "create_approval_template" in node["related"]
        for kind in ("success_nodes", "failure_nodes", "always_nodes"):
            assert all(next_node["identifier"] in NODES for next_node in node["related"][kind])


def test_the_others_follow_an_approval_that_follows_the_canary() -> None:
    def after(name: str) -> list[str]:
        return [node["identifier"] for node in NODES[name]["related"]["success_nodes"]]

    assert (after("canary"), after("approval")) == (["approval"], ["others"])
