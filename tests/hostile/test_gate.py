# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gate that is not met: FlashInfer does not come, and where it is there already the play fails.

There is no GPU here, so documents go to a server, which never meets a gate. OlmOCR is the stand-in of the unit tests.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import light_stack
import pytest
from light_hosts import REPOSITORY, LightHosts

OLMOCR = REPOSITORY / "tests/unit/fixtures/gpu/fake_olmocr/olmocr"
MEASURED = {
    "benchmark_levels": ["documents"],
    "benchmark_server": "http://127.0.0.1:1/v1",  # nobody listens: the stand-in asks none
    "benchmark_stand_in": "a fake OlmOCR",
    "benchmark_model": "stand-in",
    "benchmark_documents": 1,
    "benchmark_workers": [1],
    "benchmark_repeats": 5,
}
GATE = {"flashinfer_min_speedup": 1.05}
NEWER = "0.3.2"
SAID = "found them sent to a fake OlmOCR, whose speed says nothing of this FlashInfer"


@pytest.fixture(scope="module")
def hosts(make_hosts: Callable[[], LightHosts]) -> LightHosts:
    hosts = make_hosts()
    files = {f"olmocr/{path.name}": path.read_text(encoding="utf-8") for path in OLMOCR.glob("*.py")}
    hosts.wheel(hosts.wheels, "olmocr", "0.4.2", "", files)
    wheels = hosts.folder / "flashinfer"
    name, version, metadata, package = light_stack.WHEELS[3]
    hosts.wheel(wheels, name, version, metadata, package)
    newer = {path: text.replace(version, NEWER) for path, text in package.items()}
    hosts.wheel(wheels, name, NEWER, metadata, newer)
    common = {"stack_find_links": [str(wheels)], **MEASURED}
    hosts.add("comes", **common, **GATE)
    hosts.add("auto", fi_method="auto", **common, **GATE)
    hosts.add("by-this-collection", **common)
    hosts.add("another-release", **common)
    hosts.add("later-without", **common)
    hosts.add("by-hand", ("flashinfer-python==0.3.1",), **common, **GATE)
    print(hosts.run())
    shutil.copytree(hosts.folder / "reports", hosts.folder / "first")
    hosts.hosts = {
        "by-this-collection": {**hosts.hosts["by-this-collection"], **GATE},
        "another-release": {**hosts.hosts["another-release"], **GATE, "fi_version": NEWER},
        "later-without": {**hosts.hosts["later-without"], **GATE},
    }
    print(hosts.run())
    hosts.hosts = {"later-without": {**hosts.hosts["later-without"], "flashinfer_min_speedup": 0}}
    print(hosts.run())
    return hosts


def test_the_baseline_stays_where_the_gate_is_missed(hosts: LightHosts) -> None:
    evidence = hosts.evidence("comes")
    assert evidence["result"] == "failed"
    assert SAID in evidence["failure"]
    assert "is back and proven" in evidence["failure"]
    assert [SAID in problem for problem in evidence["gate"]["problems"]] == [True]
    assert evidence["benchmark"]["documents"]["status"] == "measured"
    assert not list(hosts.environment("comes").glob("lib/python3*/site-packages/flashinfer*"))


def test_no_other_method_is_asked_until_the_answer_pleases(hosts: LightHosts) -> None:
    said = hosts.evidence("auto")["failure"]
    assert "pypi: Judge what was measured: " in said and SAID in said
    assert "No other method was tried: each installs the same release." in said
    assert "source: " not in said and "constrained: " not in said
    assert "is back and proven" in said


def test_where_flashinfer_is_already_it_is_measured_against_the_kept_baseline_and_stays(hosts: LightHosts) -> None:
    assert '"verified"' in (hosts.folder / "first/by-this-collection/evidence.json").read_text()
    evidence = hosts.evidence("by-this-collection")
    assert evidence["result"] == "failed"
    assert SAID in evidence["failure"]
    assert "was not touched" in evidence["failure"]
    assert len(evidence["benchmark"]["documents"]["comparisons"]) == 3
    assert list(hosts.environment("by-this-collection").glob("lib/python3*/site-packages/flashinfer"))


def test_a_run_without_a_gate_leaves_one_that_was_missed(hosts: LightHosts) -> None:
    evidence = hosts.evidence("later-without")
    assert evidence["result"] == "verified"
    assert [SAID in problem for problem in evidence["gate"]["problems"]] == [True]


def test_another_release_is_measured_against_the_kept_baseline_too(hosts: LightHosts) -> None:
    evidence = hosts.evidence("another-release")
    assert evidence["result"] == "failed"
    assert SAID in evidence["failure"]
    assert "is back and proven" in evidence["failure"]
    sites = hosts.environment("another-release").glob("lib/python3*/site-packages/flashinfer_python-*")
    assert [path.name for path in sites] == ["flashinfer_python-0.3.1.dist-info"]


def test_where_no_baseline_without_it_is_kept_the_gate_cannot_be_judged(hosts: LightHosts) -> None:
    evidence = hosts.evidence("by-hand")
    assert evidence["result"] == "failed"
    assert "not run: expected a baseline without FlashInfer, found FlashInfer in" in evidence["failure"]
    assert list(hosts.environment("by-hand").glob("lib/python3*/site-packages/flashinfer"))
