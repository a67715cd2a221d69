# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gates: what closes them, and that plain Ansible's leaks are closed by rollout.yml's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.ocrfleet.gpu_stack.plugins.action.rollout_gate import earlier, not_converted

from ocrfleet import gate, policy
from ocrfleet.ansible import _Seen, fleet_of, judge

ROOT = Path(__file__).resolve().parents[3]
PROOF = {"host": "h", "result": "verified", "finished": "9999", "transaction": {"baseline_id": "b"}}


@pytest.mark.parametrize(
    ("states", "canary", "allowed", "closed"),
    [
        (["converted"] * 10, False, 0, False),
        (["converted"] * 9 + ["unchanged"], False, 0, False),
        (["converted"] * 9 + ["failed"], False, 0, True),
        (["converted"] * 9 + ["failed"], False, 1, False),
        (["converted"] * 9 + ["failed"], True, 1, True),
        (["converted"] * 9 + ["unreachable"], False, "10%", False),
        (["converted"] * 8 + ["unreachable", "skipped"], False, "10%", True),
        (["converted"] * 8 + ["failed"], False, "10%", True),
        (["pending"] * 2, False, 0, True),
    ],
)
def test_decide(states: list[str], canary: bool, allowed: int | str, closed: bool) -> None:
    named = {f"h{number}": state for number, state in enumerate(states)}
    assert gate.decide(named, canary, policy.complete({"allowed_failures": allowed})).closed is closed


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        ({"a": {"b": 2.0}}, []),
        ({"a": {"b": 1}}, ["speed: 1, at least 2 is asked for"]),
        ({"a": {}}, ["speed: expected a number from a.b, found None"]),
        ({"a": {"b": True}}, ["speed: expected a number from a.b, found True"]),
        ({"a": {"b": float("nan")}}, ["speed: expected a number from a.b, found nan"]),
        (None, ["speed: expected a number from a.b, found None"]),
    ],
)
def test_a_figure_that_is_missing_is_not_reached(evidence: dict | None, said: list[str]) -> None:
    assert gate.figure_problems(evidence, [{"name": "speed", "query": "a.b", "at_least": 2}]) == said


def test_a_query_that_cannot_be_answered_is_a_missed_figure() -> None:
    [said] = gate.figure_problems({}, [{"name": "speed", "query": "max(benchmark.a)", "at_least": 2}])
    assert said.startswith("speed: max(benchmark.a) gives no number: ")


@pytest.mark.parametrize(
    ("query", "value"),
    [
        pytest.param("a", 10**400, id="no float is as large"),
        pytest.param("a", [10**5000], id="Python writes no such number"),
        pytest.param("avg(a)", [10**400, 1], id="a mean of it"),
        pytest.param("abs(a)", {}, id="no number"),
        pytest.param("to_string(a)", {"b": 10**5000}, id="as text"),
    ],
)
def test_whatever_a_host_says_is_a_missed_figure_and_no_end_of_the_driver(query: str, value: object) -> None:
    [said] = gate.figure_problems({"a": value}, [{"name": "speed", "query": query, "at_most": 2}])
    assert said.startswith(f"speed: {query} gives no number: ")


@pytest.mark.parametrize(
    ("stats", "evidence", "state"),
    [
        ({"processed": {"h": 1}}, PROOF, "converted"),
        ({"processed": {"h": 1}}, {**PROOF, "finished": "2000"}, "unchanged"),
        ({"processed": {"h": 1}}, {**PROOF, "transaction": {}}, "unchanged"),
        ({"processed": {"h": 1}, "failures": {"h": 1}}, PROOF, "failed"),
        ({"processed": {"h": 1}, "dark": {"h": 1}}, PROOF, "unreachable"),
        ({"processed": {"h": 1}, "rescued": {"h": 1}}, {**PROOF, "result": "failed"}, "failed"),
        ({"processed": {"h": 1}, "rescued": {"h": 1}}, {}, "failed"),
        ({"processed": {}}, PROOF, "unknown"),
        (None, PROOF, "unknown"),
        ({"processed": {"h": 1}}, {**PROOF, "transaction": {"baseline_id": "{{ 1 }}"}}, "unknown"),
        ({"processed": {"h": 1}}, {**PROOF, "transaction": {"baseline_id": "b\n"}}, "unknown"),
        ({"processed": {"h": 1}}, {**PROOF, "finished": "2000", "transaction": {"baseline_id": "{{ 1 }}"}}, "unknown"),
        ({"processed": {"h": 1}}, {**PROOF, "transaction": {"baseline_id": ["b"]}}, "unknown"),
        ({"processed": {"h": 1}}, {**PROOF, "lock": "--index-url=http://elsewhere\n"}, "unknown"),
    ],
)
def test_a_hosts_outcome(stats: dict | None, evidence: dict, state: str) -> None:
    assert judge("h", _Seen(stats=stats), evidence, True, began=1e9).state == state


def test_groups_of_a_host_are_all_above_it() -> None:
    listing = {
        "_meta": {},
        "all": {"children": ["ungrouped", "site"]},
        "site": {"children": ["rack"]},
        "rack": {"hosts": ["a", "b"]},
        "spare": {"hosts": ["b"]},
    }
    fleet = fleet_of(listing)
    assert (fleet.hosts, fleet.groups) == (
        ["a", "b"],
        {"a": ["all", "rack", "site"], "b": ["all", "rack", "site", "spare"]},
    )


def test_the_plain_gate_judges_by_evidence() -> None:
    told = {
        "verified": {"__flashinfer_evidence": {"result": "verified"}},
        "had it": {"__stack_machine": {"converged": True}},
        "failed": {"__flashinfer_evidence": {"result": "failed"}},
        "silent": {},
        "given up": {"__flashinfer_evidence": {"result": "verified"}},
    }
    found = not_converted(told, set(told) - {"given up"}, told)
    assert sorted(found) == ["failed", "given up", "silent"]
    assert earlier(["a", "b", "c", "d"], ["c", "d"]) == ["a", "b"]
    assert earlier(["a", "b"], ["a"]) == []


def test_a_host_goes_through_the_same_roles_in_a_rollout_and_in_site() -> None:
    [site] = yaml.safe_load((ROOT / "playbooks/site.yml").read_text())
    rollout, _last = yaml.safe_load((ROOT / "playbooks/rollout.yml").read_text())
    assert rollout["roles"][1:] == site["roles"]
    assert rollout["vars"] == site["vars"]


# --- the leaks of Ansible's own settings, with the keywords that rollout.yml has and without its gate ---


def play(strategy: str, gated: bool) -> list[dict]:
    first, last = yaml.safe_load((ROOT / "playbooks/rollout.yml").read_text())
    keywords = {name: first[name] for name in ("hosts", "gather_facts", "serial")}
    roles = first["roles"]
    assert roles[0]["role"] == "ocrfleet.gpu_stack.rollout", "the gate has to come before everything else"
    assert first["strategy"] == "linear"
    rescued = {
        "block": [{"ansible.builtin.fail": {"msg": "on purpose"}, "when": "fails | default(false)"}],
        "rescue": [{"ansible.builtin.debug": {"msg": "rescued"}}],
    }
    touch = {
        "ansible.builtin.raw": "touch {{ folder }}/{{ inventory_hostname }}",
        "changed_when": True,
    }
    verified = {
        "ansible.builtin.set_fact": {
            "__flashinfer_evidence": {"result": "{{ 'failed' if fails | default(false) else 'verified' }}"}
        }
    }
    return [
        {
            **keywords,
            "strategy": strategy,
            "max_fail_percentage": 0,
            "roles": roles[:1] if gated else [],
            "tasks": [touch, rescued, verified],
        },
        *([last] if gated else []),
    ]


def run(
    tmp_path: Path, strategy: str, gated: bool, canary: dict, waves: list[int] | str, limit: str = "all"
) -> tuple[str, set[str]]:
    hosts = {name: {"ansible_connection": "local"} for name in ("h1", "h2", "h3")}
    hosts["h1"].update(canary)
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play(strategy, gated)))
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    (tmp_path / "touched").mkdir()
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "--inventory=inventory.yml",
            f"--limit={limit}",
            "--extra-vars=" + json.dumps({"folder": f"{tmp_path}/touched", "rollout_waves": waves}),
            "play.yml",
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_HOME": str(tmp_path / "home"),
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"),
            "ANSIBLE_SSH_RETRIES": "0",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout + done.stderr, {path.name for path in (tmp_path / "touched").iterdir()}


AWAY = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}


@pytest.mark.parametrize(
    ("strategy", "canary", "waves", "said"),
    [
        pytest.param("linear", {"fails": True}, [1, 1, 1], "h1: its evidence says failed", id="rescued canary"),
        # Where a canary is alone, Ansible stops by itself.
        pytest.param("linear", AWAY, [2, 1], "h1: failed or was unreachable", id="unreachable canary"),
        pytest.param("free", {}, [1, 1, 1], "expected the strategy linear, found free", id="free"),
    ],
)
def test_the_gate_holds_where_ansibles_own_settings_leak(
    tmp_path: Path, strategy: str, canary: dict, waves: list[int], said: str
) -> None:
    output, touched = run(tmp_path, strategy, True, canary, waves)
    assert said in " ".join(output.split()), output
    first_wave = {f"h{number}" for number in range(1, waves[0] + 1)}
    assert touched <= first_wave, output


@pytest.mark.parametrize(
    ("strategy", "canary", "waves", "expected"),
    [
        pytest.param("linear", {"fails": True}, [1, 1, 1], {"h1", "h2", "h3"}, id="rescued canary"),
        pytest.param("linear", AWAY, [2, 1], {"h2", "h3"}, id="unreachable canary"),
        pytest.param("free", {"fails": True}, [1, 1, 1], {"h1", "h2", "h3"}, id="free"),
    ],
)
def test_without_the_gate_the_next_wave_runs(
    tmp_path: Path, strategy: str, canary: dict, waves: list[int], expected: set[str]
) -> None:
    """Else the test above proves nothing, or Ansible has mended it."""
    output, touched = run(tmp_path, strategy, False, canary, waves)
    assert touched == expected, output


@pytest.mark.parametrize("limit", ["h1", "all"])
def test_the_last_wave_is_judged_with_and_without_a_limit(tmp_path: Path, limit: str) -> None:
    output, _touched = run(tmp_path, "linear", True, {"fails": True}, [3], limit)
    assert "h1: its evidence says failed" in " ".join(output.split()), output
    assert "1 of " + ("1" if limit == "h1" else "3") + " hosts" in " ".join(output.split()), output


def test_waves_may_be_one_text_as_a_survey_gives_them(tmp_path: Path) -> None:
    output, touched = run(tmp_path, "linear", True, {"fails": True}, "1, 100% ")
    assert touched == {"h1"}, output
    assert "h1: its evidence says failed" in " ".join(output.split()), output
