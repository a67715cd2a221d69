# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`auto` goes on where a method fails, from the baseline each time, and stops at the first that verifies.

The index, uv and the builds are real; FlashInfer is a stand-in.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import light_stack
import pytest
from light_hosts import LightHosts

NAME, VERSION, _NOTHING, FILES = light_stack.WHEELS[3]
BROKEN = {**FILES, "flashinfer/__init__.py": "raise RuntimeError('this release breaks on purpose')\n"}
NO_SOURCE = "https://127.0.0.1:1/flashinfer.git"  # nobody listens there


@pytest.fixture(scope="module")
def hosts(make_hosts: Callable[[], LightHosts]) -> LightHosts:
    hosts = make_hosts()
    hosts.wheel(hosts.folder / "broken", NAME, VERSION, "", BROKEN)
    hosts.add(
        "source-does",
        fi_method="auto",
        stack_find_links=[str(hosts.folder / "broken")],
        flashinfer_source=hosts.sources(hosts.folder / "source"),
    )
    # The stack has a newer one, which is protected.
    hosts.wheel(hosts.folder / "unmet", NAME, VERSION, "Requires-Dist: packaging<25\nRequires-Dist: tabulate\n", FILES)
    hosts.add(
        "constrained-does",
        fi_method="auto",
        stack_find_links=[str(hosts.folder / "unmet")],
        flashinfer_source=NO_SOURCE,
        flashinfer_accept_unmet=["packaging"],
    )
    print(hosts.run())
    return hosts


def attempts(hosts: LightHosts, name: str) -> list[tuple[str, bool]]:
    return [(row["method"], row["verified"]) for row in hosts.evidence(name)["attempts"]]


def added(hosts: LightHosts, name: str) -> set[str]:
    """What lies in site-packages beside what was there. Elsewhere are only a script and what the role itself writes."""
    changed = [path for path in hosts.changes(name) if "/site-packages/" in path]
    others = [path for path in hosts.changes(name) if "site-packages" not in path]
    ours = ("bin", "bin/activate", "bin/tabulate", "etc", "etc/ocrfleet")
    assert [path for path in others if not path.startswith("etc/ocrfleet/") and path not in ours] == []
    return {path.partition("/site-packages/")[2].split("/")[0].split("-")[0] for path in changed}


def test_what_does_not_verify_is_taken_back_and_the_next_method_tried(hosts: LightHosts) -> None:
    evidence = hosts.evidence("source-does")
    assert (evidence["result"], evidence["method"]) == ("verified", "auto: source")
    assert attempts(hosts, "source-does") == [("pypi", False), ("source", True)]
    assert "this release breaks on purpose" in evidence["attempts"][0]["said"]
    assert any("pypi did not lead to a verified FlashInfer" in note for note in evidence["notes"])


def test_what_can_neither_be_planned_nor_built_leads_to_the_last_method(hosts: LightHosts) -> None:
    evidence = hosts.evidence("constrained-does")
    assert (evidence["result"], evidence["method"]) == ("verified", "auto: constrained")
    assert attempts(hosts, "constrained-does") == [("pypi", False), ("source", False), ("constrained", True)]
    assert "flashinfer-python==0.3.1 depends on packaging<25" in evidence["attempts"][0]["said"]
    assert "Failed to connect to 127.0.0.1 port 1" in evidence["attempts"][1]["said"]
    assert {row["name"]: row["status"] for row in evidence["needs"]} == {
        "packaging": "conflicting",
        "tabulate": "installed",
    }


@pytest.mark.parametrize(
    ("name", "method", "packages"),
    [("source-does", "source", set()), ("constrained-does", "constrained", {"tabulate"})],
)
def test_the_result_is_the_baseline_and_what_the_last_method_added(
    hosts: LightHosts, name: str, method: str, packages: set[str]
) -> None:
    record = json.loads((hosts.environment(name) / "etc/ocrfleet/flashinfer.json").read_text())
    assert (record["method"], record["version"]) == (method, VERSION)
    imported = (hosts.environment(name) / "lib").glob("python3*/site-packages/flashinfer/__init__.py")
    assert [path.read_text() for path in imported] == [FILES["flashinfer/__init__.py"]]
    assert added(hosts, name) == {"flashinfer", "flashinfer_python"} | packages
