# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import distributions, machine
from ansible_collections.ocrfleet.gpu_stack.plugins.modules import stack_preflight
from made_environment import SITE, make_environment

PLATFORMS = {"debian-12": {"manager": "apt", "packages": []}, "rocky-9": {"manager": "dnf", "packages": []}}
PARAMS = {
    "platforms": PLATFORMS,
    "python": "3.11",
    "backend": "venv",
    "disk_gb": 30.0,
    "environment_required": False,
}


def seen(**changes):
    environment = {"path": "/srv/env", "state": "absent", "kind": None, "python": None, "owner": None}
    environment.update(changes.pop("environment", {}))
    machine_ = {"distribution": "debian-12", "user": "ocr", "python": "/usr/bin/python3.11", "disk_free_gb": 80.0}
    return {**machine_, **changes, "environment": environment}


THERE = {"state": "environment", "kind": "venv", "python": "3.11", "owner": "ocr"}


@pytest.mark.parametrize(
    ("params", "machine_", "said"),
    [
        ({}, seen(), []),
        ({}, seen(environment=THERE, disk_free_gb=3.5), []),  # FlashInfer alone needs a tenth
        ({}, seen(distribution="rocky-9.4"), []),
        ({}, seen(distribution="debian-11"), ["distribution: expected one of debian-12, rocky-9, found debian-11"]),
        ({}, seen(disk_free_gb=12.34), ["disk: expected 30 GB free"]),
        ({}, seen(python=None), ["python: expected an interpreter 3.11 on PATH, found none"]),
        ({"backend": "conda"}, seen(python=None), []),  # conda brings its own
        ({}, seen(environment={**THERE, "python": "3.9"}), ["python: expected 3.11 in /srv/env, found 3.9"]),
        ({"python": ""}, seen(environment={**THERE, "python": "3.9"}), []),
        ({}, seen(environment={"state": "foreign"}), ["environment: expected a conda or venv prefix at /srv/env"]),
        (
            {"environment_required": True},
            seen(),
            ["environment: expected one with OlmOCR at /srv/env, found it absent"],
        ),
        # All at once, not one per run.
        (
            {"environment_required": True},
            seen(distribution="arch", disk_free_gb=1.0, python=None),
            ["distribution:", "environment:", "python:", "disk:"],
        ),
    ],
)
def test_everything_wrong_is_listed_at_once(params, machine_, said):
    problems = stack_preflight.find_problems({**PARAMS, **params}, machine_)
    assert len(problems) == len(said)
    for problem, start in zip(problems, said):
        assert problem.startswith(start)


def test_another_owners_environment_is_refused(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (problem,) = stack_preflight.find_problems(PARAMS, seen(environment={**THERE, "owner": "olmocr"}))
    assert problem.startswith("environment: /srv/env belongs to olmocr, this run is ocr; connect as olmocr")


def test_the_state_of_a_prefix_is_told_apart(tmp_path):
    tree = make_environment(tmp_path / "env")
    assert machine.environment_state(str(tree))["state"] == "environment"
    (tree / "bin/python").unlink()
    assert machine.environment_state(str(tree))["state"] == "partial"
    (tmp_path / "empty").mkdir()
    assert machine.environment_state(str(tmp_path / "empty"))["state"] == "empty"
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/todo.txt").write_text("mine\n")
    assert machine.environment_state(str(tmp_path / "notes"))["state"] == "foreign"
    assert machine.environment_state(str(tmp_path / "none"))["state"] == "absent"


@pytest.fixture
def converged(tmp_path):
    tree = make_environment(tmp_path / "env")
    reports = tmp_path / "reports"
    reports.mkdir()
    evidence = {"spec_hash": "h", "result": "verified", "fingerprint": distributions.fingerprint(str(tree))}
    (reports / "evidence.json").write_text(json.dumps(evidence))
    return tree, reports


def why(tree, reports, spec_hash="h"):
    return stack_preflight.why_not_converged(stack_preflight.read_evidence(str(reports)), spec_hash, str(tree))


def test_a_machine_that_has_it_all_is_converged(converged):
    assert why(*converged) == ""


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda tree, reports: (reports / "evidence.json").unlink(), "no evidence"),
        (lambda tree, reports: (reports / "evidence.json").write_text("{half"), "no evidence"),
        (lambda tree, reports: (reports / "evidence.json").write_text('{"spec_hash": "x"}'), "the inputs are not"),
        (lambda tree, reports: (reports / "evidence.json").write_text('{"spec_hash": "h"}'), "did not end verified"),
        (lambda tree, reports: (tree / SITE / "tool/data.bin").unlink(), "damaged: tool"),
        (
            lambda tree, reports: (tree / SITE / "tool-1.0.dist-info/RECORD").write_text(""),
            "are not those of the earlier",
        ),
    ],
)
def test_anything_else_is_work_to_do(converged, harm, said):
    harm(*converged)
    assert said in why(*converged)


def test_os_release_is_read_as_the_specification_says(tmp_path):
    path = tmp_path / "os-release"
    path.write_text("ID=ubuntu\nVERSION_ID=\"24.04\"\n\n# a comment\nNAME='Ubuntu'\n")
    assert machine.os_release(str(path)) == {"ID": "ubuntu", "VERSION_ID": "24.04", "NAME": "Ubuntu"}


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo 'NVIDIA L4, 570.86.10'", {"devices": ["NVIDIA L4, 570.86.10"], "problem": None}),
        ("echo 'Failed to initialize NVML' >&2; exit 18", {"devices": [], "said": "exit code 18"}),
        ("exec sleep 30", {"devices": [], "said": "did not end within"}),
    ],
)
def test_nvidia_smi_may_answer_fail_or_hang(tmp_path, monkeypatch, script, found):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    seen_ = machine.gpus(timeout=1)
    assert seen_["devices"] == found["devices"]
    assert found.get("said", "") in (seen_["problem"] or "")
