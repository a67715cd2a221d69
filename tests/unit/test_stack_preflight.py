# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os

import ad_hoc
import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    distributions,
    flashinfer_policy,
    machine,
    machine_table,
    nvidia,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.modules import stack_preflight
from made_environment import SITE, make_environment

# What nvidia-smi prints for nvidia.QUERY.
L4 = "0, NVIDIA L4, GPU-b1c5a5a0-2c6f-0d5a-7f0e-2a8f6f1f3c44, 8.9, 550.54.15, 23034, 1, [N/A]"

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
    begun = tree.with_name(tree.name + machine.BEGUN)
    begun.touch()
    assert machine.environment_state(str(tree))["state"] == "partial", "what a killed run left may answer"
    begun.unlink()
    (tree / "bin/python").unlink()
    assert machine.environment_state(str(tree))["state"] == "partial"
    (tmp_path / "empty").mkdir()
    assert machine.environment_state(str(tmp_path / "empty"))["state"] == "empty"
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/todo.txt").write_text("mine\n")
    assert machine.environment_state(str(tmp_path / "notes"))["state"] == "foreign"
    assert machine.environment_state(str(tmp_path / "none"))["state"] == "absent"


def came_by(tree, method):
    record = tree / flashinfer_policy.RECORD
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"method": method, "version": "0.3.1"}))


@pytest.fixture
def converged(tmp_path):
    tree = make_environment(tmp_path / "env")
    reports = tmp_path / "reports"
    reports.mkdir()
    evidence = {"spec_hash": "h", "result": "verified", "fingerprint": distributions.fingerprint(str(tree))}
    evidence["method"] = "constrained"
    came_by(tree, "constrained")
    (reports / "evidence.json").write_text(json.dumps(evidence))
    return tree, reports


def why(tree, reports, spec_hash="h"):
    return stack_preflight.why_not_converged(stack_preflight.read_evidence(str(reports)), spec_hash, str(tree))


@pytest.mark.parametrize("method", ["constrained", "auto: constrained"])
def test_a_machine_that_has_it_all_is_converged(converged, method):
    evidence = converged[1] / "evidence.json"
    evidence.write_text(json.dumps({**json.loads(evidence.read_text()), "method": method}))
    assert why(*converged) == ""


def test_a_gate_that_was_missed_is_work_to_do(converged):
    evidence = converged[1] / "evidence.json"
    gate = {"min_speedup": 1.05, "max_slowdown": 1, "problems": []}
    evidence.write_text(json.dumps({**json.loads(evidence.read_text()), "gate": gate}))
    assert why(*converged) == ""
    gate["problems"] = ["expected a mean speed-up"]
    evidence.write_text(json.dumps({**json.loads(evidence.read_text()), "gate": gate}))
    assert "did not meet flashinfer_min_speedup" in why(*converged)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda tree, reports: (reports / "evidence.json").unlink(), "no evidence"),
        (lambda tree, reports: (reports / "evidence.json").write_text("{half"), "no evidence"),
        (lambda tree, reports: (reports / "evidence.json").write_text('{"spec_hash": "x"}'), "the inputs are not"),
        (lambda tree, reports: (reports / "evidence.json").write_text('{"result": "restored"}'), "was returned to a"),
        (lambda tree, reports: (reports / "evidence.json").write_text('{"spec_hash": "h"}'), "did not end verified"),
        (lambda tree, reports: (tree / SITE / "tool/data.bin").unlink(), "damaged: tool"),
        (
            lambda tree, reports: (tree / SITE / "tool-1.0.dist-info/RECORD").write_text(""),
            "are not those of the earlier",
        ),
        # A return to the result of another method leaves the later run's evidence, and the same packages.
        (lambda tree, _reports: came_by(tree, "pypi"), "is there by pypi, in the earlier run it came by constrained"),
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
    ("script", "devices", "problem"),
    [
        (f"echo '{L4}'", ["NVIDIA L4, driver 550.54.15"], ""),
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", [], "reboot the host"),
        ("exec sleep 30", [], "nvidia-smi did not end within 1 s: a driver or GPU hangs"),
    ],
)
def test_nvidia_smi_may_answer_fail_or_hang(tmp_path, monkeypatch, script, devices, problem):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = nvidia.survey(timeout=1)
    assert found.devices == devices
    assert problem in found.problem
    assert bool(problem) == bool(found.problem)


def survey(*rows, **more):
    driver, gpus = nvidia.parse_query("\n".join(rows))
    return nvidia.Survey(driver=driver, gpus=gpus, **more)


CARD = ["/dev/nvidia0"]
OLD = L4.replace("550.54.15", "470.256.02")
MIG = L4.replace("[N/A]", "Enabled")
BUSY = L4.replace(", 1,", ", 20991,")
V100 = L4.replace("8.9", "7.0").replace("NVIDIA L4", "Tesla V100")
P100 = L4.replace("8.9", "6.0").replace("NVIDIA L4", "Tesla P100")
HANGS = {"problem": "nvidia-smi did not end within 20 s: a driver or GPU hangs"}
NONE = {"absent": "nvidia-smi is not on PATH"}
KERNEL = {"version": "", "loaded": False, "nouveau": False, "secure_boot": None}
BLOCKED = {**KERNEL, "nouveau": True, "secure_boot": True}


@pytest.mark.parametrize(
    ("params", "found", "hardware", "problems", "remarks", "kernel"),
    [
        row if len(row) == 6 else (*row, KERNEL)
        for row in [
            ({}, survey(L4), CARD, [], []),
            # Told as well: what keeps the driver from loading.
            ({}, survey(**NONE), CARD, ["GPU: expected an answer", "nouveau:", "Secure Boot:"], [], BLOCKED),
            # It will be installed.
            ({"driver": "present"}, survey(**NONE), CARD, [], ["GPU: expected an answer"]),
            ({"driver": "present"}, survey(P100), CARD, ["GPU 0 (Tesla P100): its", "GPU 0 (Tesla P100): Fl"], []),
            ({}, survey(**NONE), [], [], []),
            (
                {"gpu": "required"},
                survey(**NONE),
                [],
                ["GPU: expected an NVIDIA GPU, found none (nvidia-smi is not on"],
                [],
            ),
            ({}, survey(**NONE), CARD, ["GPU: expected an answer from nvidia-smi for /dev/nvidia0"], []),
            ({}, survey(**HANGS), CARD, ["GPU: nvidia-smi did not end within 20 s"], []),
            ({}, survey(**HANGS), [], [], ["GPU: nvidia-smi did not end within 20 s"]),
            (
                {"gpu": "required"},
                survey(**HANGS),
                [],
                ["GPU: expected an NVIDIA GPU"],
                ["GPU: nvidia-smi did not end"],
            ),
            ({}, survey(OLD), CARD, ["driver: CUDA 12.8 needs 525.60.13 or newer, found 470.256.02"], []),
            ({"gpu": "ignored"}, survey(OLD), CARD, [], ["driver: CUDA 12.8 needs 525.60.13"]),
            (
                {},
                survey(P100),
                CARD,
                ["GPU 0 (Tesla P100): its compute cap", "GPU 0 (Tesla P100): FlashInfer needs"],
                [],
            ),
            ({}, survey(V100), CARD, ["GPU 0 (Tesla V100): FlashInfer needs compute capability 7.5, found 7.0"], []),
            ({"flashinfer": False}, survey(V100), CARD, [], []),
            ({}, survey(L4, L4.replace("0, N", "1, N", 1)), CARD, [], ["2 GPUs: the first visible one is used"]),
            ({}, survey(MIG), CARD, ["MIG: expected an instance"], ["GPU 0 (NVIDIA L4)"]),
            ({}, survey(MIG, mig_instances=2), CARD, [], ["GPU 0 (NVIDIA L4): MIG is on"]),
            ({}, survey(BUSY), CARD, [], ["GPU 0 (NVIDIA L4): in use by processes that cannot be"]),
        ]
    ],
)
def test_what_is_wrong_with_the_gpu(params, found, hardware, problems, remarks, kernel):
    defaults = {"environment": "/nonexistent", "gpu": "auto", "cuda": "12.8", "architectures": ["sm_70", "sm_80"]}
    seen_ = {"gpus": {"survey": found, "hardware": hardware}, "driver": kernel}
    texts = stack_preflight.gpu_findings({**defaults, "flashinfer": True, "driver": "check", **params}, seen_)
    for said, expected in zip(texts, (problems, remarks)):
        assert len(said) == len(expected), said
        for text, start in zip(said, expected):
            assert text.startswith(start)


def test_the_cuda_version_of_an_environments_own_torch_counts(tmp_path):
    tree = make_environment(tmp_path / "env")
    (tree / SITE / "torch/version.py").write_text(
        "from typing import Optional\n__all__ = ['cuda']\ndebug = False\ncuda: Optional[str] = '13.0'\n"
    )
    params = {"environment": str(tree), "gpu": "auto", "cuda": "12.8", "architectures": ["sm_70"], "flashinfer": True}
    seen_ = {"gpus": {"survey": survey(L4), "hardware": CARD}, "driver": KERNEL}
    problems, _remarks = stack_preflight.gpu_findings({**params, "driver": "check"}, seen_)
    assert problems == ["driver: CUDA 13.0 needs 580.65.06 or newer, found 550.54.15; install a newer driver"]


def test_the_table_has_every_line():
    seen_ = {
        **seen(environment={**THERE, "torch": "2.8.0"}),
        "architecture": "x86_64",
        "kernel": "6.1.0",
        "python_version": "3.11",
        "memory_gb": 67.4,
        "gpus": {"devices": [], "absent": "nvidia-smi is not on PATH", "problem": ""},
        "driver": BLOCKED,
        "toolkits": [{"home": "/usr/local/cuda-12.4", "version": "12.4"}],
        "conda": [],
    }
    assert machine_table.lines(seen_, "https://mirror/simple") == [
        "distribution   debian-12, x86_64",
        "kernel         6.1.0",
        "driver         none, nouveau, Secure Boot",
        "GPUs           nvidia-smi is not on PATH",
        "disk           80 GB free",
        "memory         67 GB",
        "Python         3.11 (/usr/bin/python3.11)",
        "conda          none",
        "CUDA toolkits  12.4 in /usr/local/cuda-12.4",
        "environment    /srv/env, venv environment",
        "PyTorch        2.8.0",
        "packages from  https://mirror/simple",
    ]


ASKING = {"installs": True, "probe_requirement": "tool==1.0", "flashinfer": False}


@pytest.mark.parametrize(
    ("changes", "asks"),
    [
        ({}, False),  # all is there: fi_method=none needs nothing from an index
        ({"flashinfer": True}, True),
        ({"flashinfer": True, "installs": False}, False),
        ({"flashinfer": True, "not_converged": ""}, False),
        ({"probe_requirement": "olmocr==0.4.2"}, True),
        ({"harm": "tool/data.bin"}, True),  # the role pytorch installs it anew
        ({"harm": "tool/data.bin", "probe_requirement": None}, False),  # flashinfer.yml refuses it
        ({"state": "absent"}, True),
        ({"state": "absent", "probe_requirement": None}, False),
    ],
)
def test_an_index_is_asked_only_where_something_is_to_be_had_from_it(tmp_path, changes, asks):
    tree = make_environment(tmp_path / "env")
    if "harm" in changes:
        (tree / SITE / changes["harm"]).unlink()
    params = {**ASKING, "environment": str(tree), **changes}
    why_ = changes.get("not_converged", "no evidence")
    assert stack_preflight.asks_index(params, why_, changes.get("state", "environment")) is asks


def test_a_file_on_the_way_to_the_environment_is_told(tmp_path):
    (tmp_path / "file").touch()
    path = str(tmp_path / "file/envs/olmocr-optimized")
    found = stack_preflight.find_problems(PARAMS, seen(environment={"path": path}))
    assert [text for text in found if text.startswith("environment: expected folders or nothing on the way to")]
    assert not [text for text in found if "prefix at" in text]


def test_a_relative_path_is_refused_before_anything_is_looked_at():
    found = ad_hoc.run("stack_preflight", {"environment": "relative/path", "platforms": {}})
    assert "expected an absolute path, found relative/path" in found["msg"]
