# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The AWX files name only what there is."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.ocrfleet.gpu_stack.plugins.action.check_inputs import ROLES, load_specs

ROOT = Path(__file__).resolve().parents[3]
FOUND = yaml.safe_load((ROOT / "awx/rollout.yml").read_text())
[WORKFLOW] = FOUND["workflow_job_templates"]
TYPE = "workflow_job_template_node"
NODES = {node["identifier"]: node for node in WORKFLOW["related"]["workflow_nodes"]}


def test_the_playbooks_exist() -> None:
    assert all((ROOT / template["playbook"]).is_file() for template in FOUND["job_templates"])


def template(playbook: str) -> dict:
    """The one job template of a playbook."""
    [found] = [entry for entry in FOUND["job_templates"] if entry["playbook"] == f"playbooks/{playbook}.yml"]
    return found


def questions(asked: dict) -> dict[str, dict]:
    return {question["variable"]: question for question in asked["related"]["survey_spec"]["spec"]}


def as_a_survey_gives_it(value: object) -> object:
    """A survey has no lists: they are one text, as Ansible takes them too."""
    return ", ".join(map(str, value)) if isinstance(value, list) else value


@pytest.mark.parametrize("asked", [template("site"), template("rollout"), WORKFLOW], ids=lambda asked: asked["name"])
def test_the_survey_asks_for_variables_with_their_choices_and_defaults(asked: dict) -> None:
    options = {name: option for role in load_specs(ROLES).values() for name, option in role.items()}
    assert asked["survey_enabled"]
    for variable, question in questions(asked).items():
        option = options[variable]
        assert set(question.get("choices", [])) == set(option.get("choices", [])), variable
        assert question["default"] == as_a_survey_gives_it(option["default"]), variable


def test_the_rollout_in_one_job_asks_for_its_waves_and_is_not_cut_into_slices() -> None:
    """Each slice would be a rollout of its own, with a canary of its own."""
    rollout = template("rollout")
    assert {"rollout_waves", "rollout_allowed_failures"} <= set(questions(rollout))
    assert set(questions(rollout)) >= set(questions(template("site")))
    assert (rollout["job_slice_count"], rollout["ask_job_slice_count_on_launch"]) == (1, False)


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


def test_no_node_puts_a_host_back() -> None:
    """What a canary has may be of an earlier run, and in use: who denies the approval decides about it."""
    assert template("rollback")["natural_key"] not in [node.get("unified_job_template") for node in NODES.values()]
