# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role report, run by Ansible on this machine: its templates are Ansible's, and so is their escaping."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import ad_hoc
import jsonschema
import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.filter.evidence import evidence
from ansible_collections.ocrfleet.gpu_stack.plugins.filter.junit import junit
from ansible_collections.ocrfleet.gpu_stack.plugins.filter.speedup_plot import speedup_plot
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import report_folder

ROOT = Path(__file__).parents[2]
EVIDENCE = json.loads((ROOT / "tests/unit/fixtures/report_evidence.json").read_text(encoding="utf-8"))
HOSTILE = "</td><script>alert(1)</script>&amp; | `x` \\ \"'{{ 7 * 7 }}\n# heading"
SCHEMA = json.loads((ROOT / "roles/report/files/evidence.schema.json").read_text(encoding="utf-8"))
VOID = {"meta"}


def report(folder: Path, evidence: dict[str, Any], *options: str) -> str:
    """Run the role with the evidence as a host would have sent it; returns what Ansible printed."""
    (folder / "evidence-in.json").write_text(json.dumps(evidence), encoding="utf-8")
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "stack_root": str(folder / "host"),
            "report_dir": str(folder / "control"),
        },
        "tasks": [
            {"ansible.builtin.slurp": {"src": str(folder / "evidence-in.json")}, "register": "sent"},
            {
                "ansible.builtin.include_role": {"name": "ocrfleet.gpu_stack.report"},
                "vars": {"__report_evidence": "{{ sent.content | b64decode | from_json }}"},
            },
        ],
    }
    (folder / "play.yml").write_text(json.dumps([play]), encoding="utf-8")
    environment = {"ANSIBLE_LOCAL_TEMP": str(folder / "tmp"), "ANSIBLE_REMOTE_TEMP": str(folder / "tmp")}
    command = [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", folder / "play.yml", *options]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Page(HTMLParser):
    """What a browser would make of the page: tags, and whether each is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile(value: Any) -> Any:
    """The same evidence with every text replaced, but for the words that are the role's own."""
    if isinstance(value, dict):
        return {key: item if key in ("status", "verdict") else hostile(item) for key, item in value.items()}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("report")
    return folder, report(folder, EVIDENCE)


def test_both_places_hold_the_same_files(written: tuple[Path, str]) -> None:
    folder, _printed = written
    for name in ("evidence.json", "report.md", "report.html", "report.xml"):
        host = folder / "host" / "reports" / name
        assert host.read_bytes() == (folder / "control" / "localhost" / name).read_bytes()
        assert host.stat().st_mode & 0o077 == 0
    assert json.loads((folder / "host/reports/evidence.json").read_text(encoding="utf-8")) == EVIDENCE


def test_the_page_says_it_all_and_needs_no_network(written: tuple[Path, str]) -> None:
    page = Page((written[0] / "host/reports/report.html").read_text(encoding="utf-8"))
    assert page.links == []
    assert page.tags.count("svg") == 2
    for text in (
        "restored",
        "not run",
        "this host has no NVIDIA GPU",
        "expected 0.3.2",
        "apache-tvm-ffi",
        "41.2 s",
        "a stand-in that reads nothing",
        "1.20 (1.10 to 1.31)",
        "no difference found",
        "mixed, 2 workersfailed: candidate: 2 of 4 pages",
        "2 ± 0.1 pages/s, 120 tokens/s",
        "flashinfer_decodefirst processcompiled here31.4passed",
        "flashinfer_decodesecond processcachefailed: NaN where none belongs",
        "baseline: ready after 41.7 s; vllm says: Using Flash Attention backend on V1 engine.",
        "2026-11-23T23:42:00Z, after 80.5 s",
        "missed Asked for: a mean speed-up of at least 1.05, no comparison slower by more than 2.0 %; judged on "
        "the level documents of 2026-11-24T12:00:00Z.",
        "expected the level documents to be measured",
        "digital, 4 workers2.96x3.04xhoped of FlashInfer: nothing; no second worker was at work",
        "mixed5 to 15 %not measured",
        "digitalnothingnothing of FlashInfer: a server read them",
        "What more workers bring has no verdict",
    ):
        assert text in page.text


def test_the_markdown_says_what_was_measured(written: tuple[Path, str]) -> None:
    markdown = (written[0] / "host/reports/report.md").read_text(encoding="utf-8")
    for line in (
        "| mixed, 2 workers | | | | failed: candidate: 2 of 4 pages were not read |",
        "| 1 request | 101 ± 1.2 tokens/s | 102 ± 0.75 tokens/s | 1.01 | too few pairs, 2 pairs |",
        "| flashinfer_decode | first process | compiled here | 31.4 | passed |",
        "| flashinfer_decode | second process | cache |  | failed: NaN where none belongs |",
        "candidate: ready after 44.9 s; vllm says: Using FlashInfer for top-p &amp; top-k sampling.",
        "| digital | nothing | nothing of FlashInfer: a server read them |  |  |",
        "| scanned | 10 to 30 % | nothing of FlashInfer: a server read them | 2.3x with 2 workers, 3.1x with 4 "
        "| 2.5 to 2.8x with 2 workers, 3.4 to 3.7x with 4 |",
        "## The gate: missed",
        "Asked for: a mean speed-up of at least 1.05, no comparison slower by more than 2.0 %; judged on the level "
        "documents of 2026-11-24T12:00:00Z.",
        "- expected the level documents to be measured, found that it failed: mixed, 2 workers; mend that first",
    ):
        assert line in markdown.splitlines()


def test_the_summary_names_what_was_not_run_and_where_the_report_is(written: tuple[Path, str]) -> None:
    folder, printed = written
    for line in (
        "passed   PyTorch is still 2.8.0+cu128",
        "not run  CUDA is available to PyTorch: this host has no NVIDIA GPU",
        "FAILED   FlashInfer imports: flashinfer-python is 0.3.1, expected 0.3.2",
        "was to add: apache-tvm-ffi 0.1.15.post2, flashinfer-python 0.3.1, pynvml 13.0.1",
        "because: FlashInfer imports (flashinfer)",
        "was to change: pynvml 12.0.0 to 13.0.1",
        "note: flashinfer-cubin left out: no version of it equals 0.3.1",
        f"report: {folder}/control/localhost/report.html",
    ):
        assert line in printed


def test_the_same_evidence_changes_nothing(written: tuple[Path, str]) -> None:
    assert "changed=0" in report(written[0], EVIDENCE)


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    assert "changed=0" in report(tmp_path, EVIDENCE, "--check")
    assert not (tmp_path / "host").exists()
    assert not (tmp_path / "control").exists()


@pytest.mark.parametrize(
    ("result", "said"),
    [("verified", ("added: apache", "changed: pynvml")), ("planned", ("would add: apache", "would change: pynvml"))],
)
def test_what_became_of_the_plan_is_told(tmp_path: Path, result: str, said: tuple[str, str]) -> None:
    printed = report(tmp_path, {**EVIDENCE, "result": result})
    assert all(re.search(f"[ '-]{text}", printed) for text in said)
    markdown = (tmp_path / "host/reports/report.md").read_text(encoding="utf-8")
    assert ("## Packages that were added" in markdown) == (result == "verified")


def test_the_hopes_stand_beside_a_level_of_another_kind_too(tmp_path: Path) -> None:
    benchmark = {"kernels": {"status": "not_run", "reason": "no GPU", "comparisons": []}}
    report(tmp_path, {**EVIDENCE, "benchmark": benchmark, "gate": {}})
    page = Page((tmp_path / "host/reports/report.html").read_text(encoding="utf-8")).text
    markdown = (tmp_path / "host/reports/report.md").read_text(encoding="utf-8")
    assert "scanned10 to 30 %not measured2.3x with 2 workers" in page
    for text in (
        "| scanned | 10 to 30 % | not measured | 2.3x with 2 workers",
        "What more workers bring has no verdict",
    ):
        assert text in markdown


def test_what_was_read_is_told_with_its_figures(tmp_path: Path) -> None:
    read = {"documents": {"your PDFs": 3}, "pages": {"your PDFs": 41}, "workers": [1, 2], "repeats": 5}
    level = {**EVIDENCE["benchmark"]["documents"], "finished": "2026-11-26T11:00:00Z", "read": read}
    report(tmp_path, {**EVIDENCE, "benchmark": {"documents": level}})
    told = "Measured 2026-11-26T11:00:00Z. Read: your PDFs, 3 documents with 41 pages; 5 repeats with 1, 2 workers."
    assert told in Page((tmp_path / "host/reports/report.html").read_text(encoding="utf-8")).text
    assert told in (tmp_path / "host/reports/report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("server", "told"), [("http://ocr:8000/v1", True), ("", False)])
def test_that_a_server_read_the_documents_is_told(tmp_path: Path, server: str, told: bool) -> None:
    """With no stand-in named the pages read as if FlashInfer had been measured."""
    level = {**EVIDENCE["benchmark"]["documents"], "stand_in": "", "server": server}
    report(tmp_path, {**EVIDENCE, "benchmark": {"documents": level}})
    page = Page((tmp_path / "host/reports/report.html").read_text(encoding="utf-8"))
    sentence = (
        "The documents were read by a server, not by this environment's vllm: that says nothing about FlashInfer."
    )
    markdown = (tmp_path / "host/reports/report.md").read_text(encoding="utf-8")
    assert [sentence in text for text in (page.text, markdown)] == [told, told]


def test_what_vllm_used_for_the_documents_is_told(tmp_path: Path) -> None:
    note = "both sides used Flash Attention and PyTorch's sampler: the figures say nothing of FlashInfer"
    level = {**EVIDENCE["benchmark"]["documents"], "stand_in": "", "server": "", "note": note}
    level |= {"baseline": {"proof": ["FlashInfer is not available."]}, "candidate": {"proof": []}}
    level["scaling"] = []
    report(tmp_path, {**EVIDENCE, "benchmark": {"documents": level}})
    page = Page((tmp_path / "host/reports/report.html").read_text(encoding="utf-8"))
    markdown = (tmp_path / "host/reports/report.md").read_text(encoding="utf-8")
    for text in (page.text, markdown):
        lines = text.splitlines()
        assert note in lines
        assert "baseline: vllm says: FlashInfer is not available." in lines
        assert "candidate: vllm says: nothing of its backends" in lines
        assert "ready after" not in text


@pytest.mark.parametrize(("seconds", "told"), [(41.7, "41.7"), ([41.7, 43], "41.7, 43")])
def test_times_to_ready_have_no_verdict(tmp_path: Path, seconds: Any, told: str) -> None:
    level = json.loads(json.dumps(EVIDENCE["benchmark"]["server"]))
    level["baseline"].update(ready_seconds=seconds, starts=2)
    report(tmp_path, {**EVIDENCE, "benchmark": {"server": level}})
    page = Page((tmp_path / "host/reports/report.html").read_text(encoding="utf-8"))
    markdown = (tmp_path / "host/reports/report.md").read_text(encoding="utf-8")
    for text in (page.text, markdown):
        assert f"baseline: ready after {told} s (median of 2 starts); vllm says: Using Flash Attention" in text
        assert "candidate: ready after 44.9 s; vllm says: Using FlashInfer" in text
        assert text.count("Baseline and candidate were started in turn; their times to ready have no verdict.") == 1


def test_what_hosts_say_is_data(tmp_path: Path) -> None:
    report(tmp_path, hostile(EVIDENCE))
    page = Page((tmp_path / "host/reports/report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert HOSTILE in page.text
    markdown = (tmp_path / "host/reports/report.md").read_text(encoding="utf-8")
    assert "<" not in markdown
    assert not re.search(r"^# heading", markdown, re.MULTILINE)
    rows = [line for line in markdown.splitlines() if line.startswith("| passed")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [6, 6]


def test_evidence_of_a_run_that_got_nowhere(tmp_path: Path) -> None:
    printed = report(tmp_path, {"result": "failed", "notes": ["the index is unreachable"]})
    assert "localhost: failed" in printed
    page = Page((tmp_path / "host/reports/report.html").read_text(encoding="utf-8"))
    assert "the index is unreachable" in page.text
    assert "table" not in page.tags


def test_the_evidence_has_the_form_of_its_schema() -> None:
    jsonschema.validate(EVIDENCE, SCHEMA)
    jsonschema.validate(
        evidence({"checks": EVIDENCE["checks"], "host": "a", "benchmark": EVIDENCE["benchmark"]}), SCHEMA
    )
    met = {"min_speedup": 1.05, "max_slowdown": 1.0, "problems": []}
    jsonschema.validate(evidence({"host": "a", "benchmark": EVIDENCE["benchmark"], "gate": met}), SCHEMA)
    mute = {"status": "measured", "comparisons": [{"name": "a", "status": "failed", "unit": "s", "better": "lower"}]}
    for wrong in ({"gate": {"problems": []}}, {"benchmark": {"kernels": mute}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**EVIDENCE, **wrong}, SCHEMA)
    silent = [{**EVIDENCE["checks"][1], "reason": ""}]
    with pytest.raises(jsonschema.ValidationError, match="non-empty|too short"):
        jsonschema.validate({**EVIDENCE, "checks": silent}, SCHEMA)


def test_a_plot_that_cannot_be_drawn_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It vanished without a word."""
    comparisons = EVIDENCE["benchmark"]["documents"]["comparisons"]
    assert speedup_plot(comparisons).startswith("<svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "matplotlib is not installed on the control node" in speedup_plot(comparisons)
    assert speedup_plot([]) == ""


def test_junit_tells_failures_and_what_was_not_run(written: tuple[Path, str]) -> None:
    suite = ElementTree.fromstring((written[0] / "host/reports/report.xml").read_text(encoding="utf-8"))  # noqa: S314
    assert [suite.get(name) for name in ("tests", "failures", "skipped")] == ["13", "6", "1"]
    assert suite.find(".//skipped").get("message") == "this host has no NVIDIA GPU"
    assert "expected 0.3.2" in suite.findall(".//failure")[-1].get("message")
    cases = {case.get("name"): case for case in suite.findall("testcase")}
    for name, reason in (
        ("benchmark, documents", "mixed, 2 workers: candidate: 2 of 4"),
        ("benchmark, documents: mixed, 2 workers", "candidate: 2 of 4"),
        ("benchmark, the gate", "expected the level documents to be measured"),
    ):
        assert reason in cases[name].find("failure").get("message")
    said = cases["benchmark, documents: scanned, 1 worker"].find("system-out").text
    assert said == "scanned, 1 worker: faster, +20.0 % (+10.0 to +31.0 %, 5 pairs)"


def test_junit_of_a_level_that_was_not_run_and_of_a_gate_that_was_met() -> None:
    level = {"status": "not_run", "reason": "no GPU", "comparisons": [{"name": "a", "reason": "no GPU"}]}
    gate = {"min_speedup": 1.05, "max_slowdown": 1, "problems": []}
    suite = ElementTree.fromstring(junit({"host": "a", "benchmark": {"server": level}, "gate": gate}))  # noqa: S314
    assert [suite.get(name) for name in ("tests", "failures", "skipped")] == ["4", "0", "2"]
    assert "benchmark, the gate" in [case.get("name") for case in suite.findall("testcase")]
    assert "benchmark, the gate" not in junit({"host": "a", "gate": {}})


def test_junit_escapes_what_xml_cannot_hold() -> None:
    hostile = "\x1b[31m&\ufffe\uffff\ud800\udfff\U0001f600"
    text = junit({"host": "a\x00<", "checks": [], "failure": hostile})
    read = ElementTree.fromstring(text.encode("utf-8"))  # noqa: S314
    assert [failure.get("message") for failure in read.iter("failure")] == [" [31m&    \U0001f600"]


def test_no_two_hosts_share_a_folder_and_none_leaves_it() -> None:
    names = ["vm_a", "vm:a", "vm/a", "vm a", "VM_a", "..a", "..:"]
    folders = [report_folder.name(name) for name in names]
    assert folders[0] == "vm_a" and folders[5] == "..a", "a name that is one stays as it is"
    assert len(set(folders)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", folder) and folder not in (".", "..") for folder in folders)
    for name in (".", ".."):
        with pytest.raises(report_folder.FolderError, match="expected a host's name"):
            report_folder.name(name)


def test_a_host_whose_reports_would_lie_outside_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    roles = [{"name": "ocrfleet.gpu_stack.report", "vars": {"__report_evidence": EVIDENCE}}]
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "roles": roles}]))
    variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {name: {**variables, "report_dir": f"{tmp_path}/reports"} for name in ("..", "vm:a", "vm_a")}
    for number, name in enumerate(hosts):
        hosts[name]["stack_root"] = f"{tmp_path}/host-{number}"
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    code, said = ad_hoc.play(tmp_path, "-i", tmp_path / "hosts.json", tmp_path / "play.yml")
    assert code == 2
    assert "expected a host's name that a folder can have, found '..'" in said
    assert not (tmp_path / "evidence.json").exists()
    assert len(list((tmp_path / "reports").glob("vm_a*/evidence.json"))) == 2


def test_a_report_for_the_control_node_alone_writes_nothing_on_the_host(tmp_path: Path) -> None:
    """A host that is refused is not touched, nor is a Python asked for there that may be what is missing."""
    files = {"report.md": "text\n"}
    only = {"own_folder": f"{tmp_path}/own", "files": files}
    there = ad_hoc.run("report_files", only, "-e", "ansible_python_interpreter=/no/python")
    assert (there["changed"], (tmp_path / "own/report.md").read_text()) == (True, "text\n")
    assert "one of the following is required: folder, own_folder" in ad_hoc.run("report_files", {"files": files})["msg"]


def test_the_summary_has_one_line_for_each_thing(tmp_path: Path) -> None:
    checks = [{**EVIDENCE["checks"][0], "title": "Kernels", "status": "failed", "reason": "no\nGPU"}]
    told = {**EVIDENCE, "failure": "first\nsecond", "checks": checks, "notes": ["one\ntwo"]}
    said = report(tmp_path, told)
    for line in ("because: first second", "FAILED   Kernels: no GPU", "note: one two"):
        assert line in said, said


def test_the_summary_is_shown_by_the_task_that_writes_the_report(tmp_path: Path) -> None:
    """And alone where there is nothing to write: a task of its own would be a process for each host."""
    own = {"own_folder": f"{tmp_path}/own", "summary": ["vm: verified", "report: own/report.html"]}
    nothing = ad_hoc.run("report_files", {**own, "files": {}}, "-e", "ansible_python_interpreter=/no/python")
    assert (nothing["changed"], nothing["msg"], list(tmp_path.iterdir())) == (False, own["summary"], [])
    written = ad_hoc.run("report_files", {**own, "folder": f"{tmp_path}/host", "files": {"report.md": "text\n"}})
    assert (written["changed"], written["msg"], written["written"]) == (True, own["summary"], ["report.md"])
    assert (tmp_path / "own/report.md").read_text() == (tmp_path / "host/report.md").read_text() == "text\n"


def test_where_the_report_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    files = {"report.md": "text\n"}
    on_host = ad_hoc.run("report_files", {"folder": f"{tmp_path}/file/reports", "files": files})
    assert on_host["msg"].startswith(f"cannot write the report to {tmp_path}/file/reports: Not a directory")
    both = {"folder": f"{tmp_path}/host", "own_folder": f"{tmp_path}/file/own", "files": files}
    here = ad_hoc.run("report_files", both)
    assert here["msg"].startswith(
        f"on the control node: cannot write the report to {tmp_path}/file/own: Not a directory"
    )
    assert (tmp_path / "host/report.md").read_text() == "text\n"
    outside = ad_hoc.run("report_files", {"folder": str(tmp_path), "files": {"../report.md": "text"}})
    assert outside["msg"] == "'../report.md' is no plain file name; expected a name without folders"
