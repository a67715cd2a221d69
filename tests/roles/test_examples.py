# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each role alone, by the example of its README: check mode first, which writes nothing, then twice for real.

The examples run one after another on one host, an environment on this machine, so that each finds what a reader's host
would have. PyTorch, vllm, OlmOCR and FlashInfer are stand-ins; uv, Ansible, the roles and their files are real.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import light_stack
import oracle
import pytest
import yaml
from light_hosts import REPOSITORY, LightHosts

ROLES = sorted(path.parent.name for path in (REPOSITORY / "roles").glob("*/README.md"))


@dataclass(frozen=True)
class Example:
    """One run. `changes` is whether the first real run has something to do; `settings` are the host's besides."""

    role: str
    changes: bool
    settings: dict[str, Any] = field(default_factory=dict)
    foretold: bool = True  # whether check mode tells a change where there is one
    again: int = 0  # what a second run changes


# Where the variables that all roles share put it; no host of a reader's has it set.
ENVIRONMENT = "FOLDER/root/envs/olmocr-optimized"

# In this order. What a host has to have for a role is what those before it brought.
EXAMPLES = [
    Example("cuda", False, {"cuda_method": "auto"}),  # no GPU here, so none is brought; see ELSEWHERE
    Example("python_env", True),
    Example("stack", True, {"stack_root": "FOLDER/another", "stack_environment": ENVIRONMENT}),
    Example("pytorch", True),
    Example("olmocr", True),
    Example("verify", False),
    # The example names an environment. A second run verifies anew, and its report says when.
    Example("flashinfer", True, {"stack_environment": ENVIRONMENT}, again=1),
    Example("activation", True, {"activation_env": {"OMP_NUM_THREADS": "8"}}),
    Example("kernel_pack", False),  # no GPU here, and no architecture is named; see ELSEWHERE
    Example("survey", False),
    # A second run looks anew at what can be measured, and says when.
    Example("benchmark", True, foretold=False, again=1),
    Example("report", True, foretold=False),
    Example("rollback", True),
]
# Roles whose example cannot run here, or not all of it, and what runs it: a text that stands in that file.
ELSEWHERE = {
    "bundle": ("tests/hostile/test_offline.py", "playbooks/bundle.yml"),
    "conda": ("molecule/conda/converge.yml", "role: ocrfleet.gpu_stack.conda"),
    "cuda": ("molecule/cuda/converge.yml", "role: ocrfleet.gpu_stack.cuda"),
    "document": ("tests/unit/test_document.py", "playbooks/document.yml"),
    "kernel_pack": ("tests/roles/test_kernel_pack.py", "ocrfleet.gpu_stack.kernel_pack"),
    "package_cache": ("benchmarks/fleet.py", "ocrfleet.gpu_stack.package_cache"),
    "rollout": ("tests/unit/fleet/test_gate.py", "playbooks/rollout.yml"),
}


def example(role: str) -> list[dict[str, Any]]:
    """The play of a role's README, for the hosts of these tests; that of the playbook where it shows a command."""
    text = (REPOSITORY / "roles" / role / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S):
        plays = yaml.safe_load(block)
        if isinstance(plays, list) and "hosts" in plays[0]:
            return [{**play, "hosts": "all"} for play in plays]
    commands = re.findall(rf"^(?:\.venv/bin/)?ansible-playbook.*{role}", text, re.M)
    assert commands, f"roles/{role}/README.md shows neither a play nor a command"
    return [dict(play) for play in yaml.safe_load((REPOSITORY / f"playbooks/{role}.yml").read_text())]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> LightHosts:
    hosts = LightHosts(tmp_path_factory.mktemp("roles"))
    hosts.wheel(hosts.wheels, *light_stack.WHEELS[3])
    name, version, _needs, files = light_stack.WHEELS[2]
    hosts.wheel(hosts.wheels, name, version, "Requires-Dist: torch==2.8.0\nRequires-Dist: vllm==0.11.0\n", files)
    index = hosts.wheels / "index"
    index.mkdir()
    hosts.hosts["one"] = {
        # Wheels from a folder, and an index that has nothing: the locks that are shipped hold the real ones.
        "stack_default_index": index.as_uri(),
        "stack_find_links": [str(hosts.wheels)],
        "pytorch_lock": "",
        "olmocr_lock": "",
        "olmocr_extras": [],
    }
    return hosts


def run(host: LightHosts, one: Example, *options: str) -> int:
    """Run the example; gives how many tasks changed something."""
    play = example(one.role)
    for entry in play:
        entry["gather_facts"] = False
    path = host.folder / f"{one.role}.yml"
    path.write_text(yaml.safe_dump(play))
    settings = {
        name: value.replace("FOLDER", str(host.folder)) if isinstance(value, str) else value
        for name, value in one.settings.items()
    }
    # As an operator would override what the example names.
    said = host.run("--extra-vars", json.dumps(settings), *options, playbook=str(path))
    recap = re.search(r"^one +: ok=\d+ +changed=(\d+) .*failed=0 ", said, re.M)
    assert recap, said
    return int(recap[1])


def seen(host: LightHosts) -> dict[str, list[object]]:
    """All that a run can have written to, less Ansible's own, uv's cache's and the play itself."""
    own = ("home", "stack", "hosts.json", "wheelhouse")
    found = oracle.tree(str(host.folder))
    return {path: entry for path, entry in found.items() if path.split("/")[0] not in own and not path.endswith(".yml")}


@pytest.mark.parametrize("one", EXAMPLES, ids=lambda one: one.role)
def test_the_example_of_a_role_runs_and_a_second_time_changes_nothing(host: LightHosts, one: Example) -> None:
    before = seen(host)
    foretold = run(host, one, "--check")
    assert seen(host) == before, "check mode has written"
    assert bool(foretold) is (one.changes and one.foretold)
    assert bool(run(host, one)) is one.changes
    assert run(host, one) == one.again


def test_each_role_has_an_example_that_a_test_runs() -> None:
    here = {one.role for one in EXAMPLES}
    assert here | ELSEWHERE.keys() == set(ROLES)
    for role, (path, text) in ELSEWHERE.items():
        assert example(role)
        assert text in (REPOSITORY / path).read_text(encoding="utf-8"), (role, path)


@pytest.mark.parametrize("role", ["cuda", "conda"])
def test_the_scenario_of_a_role_runs_the_example_of_its_readme(role: str) -> None:
    (shown,) = example(role)
    (play,) = yaml.safe_load((REPOSITORY / f"molecule/{role}/converge.yml").read_text())
    (entry,), (own,) = shown["roles"], play["roles"]
    assert own["role"] == entry["role"]
    # What the example sets is set for a host of the scenario.
    inventory = yaml.safe_load((REPOSITORY / f"molecule/inventory/{role}.yml").read_text())
    hosts = inventory[role]["hosts"].values()
    assert any(entry["vars"].items() <= host.items() for host in hosts)


def test_what_came_is_gone_in_the_end(host: LightHosts) -> None:
    """The last example was the way back."""
    tree = Path(ENVIRONMENT.replace("FOLDER", str(host.folder)))
    assert list(tree.glob("lib/python3*/site-packages/torch-*.dist-info"))
    assert not list(tree.glob("lib/python3*/site-packages/flashinfer*"))
    assert host.evidence("one")["result"] == "restored"
