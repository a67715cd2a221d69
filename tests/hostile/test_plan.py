# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `--check --diff` shows is what the run then does. The index and uv are real, FlashInfer is a stand-in."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import Any

import light_stack
import pytest
from light_hosts import GPU, LightHosts

NAME, VERSION, _NOTHING, FILES = light_stack.WHEELS[3]
# One that is there, one that is missing, and one that is missing and needs another that is missing.
NEEDS = ("packaging>=24", "tabulate", "pynvml")


def versions(hosts: LightHosts, name: str) -> set[str]:
    found = hosts.environment(name).glob("lib/python3*/site-packages/*.dist-info")
    return {"==".join(folder.name.removesuffix(".dist-info").split("-", 1)).replace("_", "-") for folder in found}


@pytest.mark.parametrize("method", ["pypi", "source", "constrained"])
def test_check_mode_shows_what_the_run_does(make_hosts: Callable[[], LightHosts], method: str) -> None:
    hosts = make_hosts()
    hosts.wheel(hosts.folder / "release", NAME, VERSION, "".join(f"Requires-Dist: {need}\n" for need in NEEDS), FILES)
    settings = {
        "pypi": {"stack_find_links": [str(hosts.folder / "release")]},
        "source": {"flashinfer_source": hosts.sources(hosts.folder / "source", NEEDS)},
        "constrained": {"stack_find_links": [str(hosts.folder / "release")]},
    }
    hosts.add(method, fi_method=method, **settings[method])
    before = versions(hosts, method)
    shown = hosts.run("--check", "--diff")
    planned = set(re.findall(r"^\s*\+([a-z][\w.-]*==\S+)$", shown, re.MULTILINE))
    assert {"flashinfer-python==0.3.1", "tabulate", "pynvml", "nvidia-ml-py"} <= planned | {
        line.split("==")[0] for line in planned
    }, shown
    assert hosts.changes(method) == []
    told = " ".join(shown.split())
    assert "Would then place the kernel pack that fits" in told
    assert "FlashInfer finds the right nvcc" in told, "an item of the checklist"
    assert "No kernel would run: this host has no NVIDIA GPU" in told
    done = hosts.run()
    assert hosts.evidence(method)["result"] == "verified", done
    assert versions(hosts, method) - before == planned
    assert before <= versions(hosts, method)
    assert {f"{row['name']}=={row['version']}" for row in hosts.evidence(method)["plan"]} == planned
    told = {row["name"]: row["status"] for row in hosts.evidence(method)["needs"]}
    satisfied = {"packaging": "satisfied", "tabulate": "installed", "pynvml": "installed"}
    assert told == (satisfied if method == "constrained" else {})


@pytest.mark.parametrize(("method", "kernels"), [("pypi", True), ("none", False)])
def test_check_mode_names_the_kernels_that_would_run(
    make_hosts: Callable[[], LightHosts], method: str, kernels: bool
) -> None:
    hosts = make_hosts()
    hosts.wheel(hosts.folder / "release", NAME, VERSION, "", FILES)
    path = f"{hosts.program('gpu', 'nvidia-smi', GPU)}:{os.environ['PATH']}"
    links = [str(hosts.folder / "release")]
    hosts.add("vm", fi_method=method, stack_find_links=links, variables={"PATH": path})
    told = " ".join(hosts.run("--check").split())
    assert "would run torch_matmul, torch_attention, triton_kernel" in told, told
    assert ("flashinfer_decode, flashinfer_prefill, flashinfer_sampling" in told) is kernels
    assert hosts.changes("vm") == []


def shown_moves(shown: str, sign: str) -> set[str]:
    return set(re.findall(rf"^\s*\{sign}([a-z][\w.-]*==\S+)$", shown, re.MULTILINE))


CHANGES: dict[str, dict[str, Any]] = {
    "another-method": {"fi_method": "constrained"},
    "another-release": {"fi_version": "0.3.2"},
    "none": {"fi_method": "none"},
}


@pytest.fixture(scope="module")
def converted(make_hosts: Callable[[], LightHosts]) -> LightHosts:
    """Hosts on which FlashInfer is, with what it brought, and two packages whose owner changed since."""
    hosts = make_hosts()
    folder = hosts.folder / "release"
    hosts.wheel(folder, NAME, VERSION, "Requires-Dist: tabulate\n", FILES)
    newer = {path: text.replace(VERSION, "0.3.2") for path, text in FILES.items()}
    hosts.wheel(folder, NAME, "0.3.2", "", newer)
    for name in CHANGES:
        hosts.add(name, stack_find_links=[str(folder)])
    print(hosts.run())
    for name, settings in CHANGES.items():
        hosts.hosts[name].update(settings)
        install = ["uv", "pip", "install", "--quiet", "--python", hosts.environment(name) / "bin/python"]
        hosts.call(*install, "pynvml", "packaging==26.2")
    return hosts


def test_what_was_installed_since_is_not_thrown_away_in_silence(converted: LightHosts) -> None:
    before = {name: versions(converted, name) for name in CHANGES}
    print(converted.run())
    for name in CHANGES:
        said = converted.failure(name)
        assert re.search(
            r"nvidia-ml-py \S+ would go; packaging 26.2 would be 26.3; pynvml \S+ would go\. Stay", said
        ), said
        assert versions(converted, name) == before[name]


def test_check_mode_shows_what_goes_and_what_comes(converted: LightHosts) -> None:
    before = {name: versions(converted, name) for name in CHANGES}
    for name in CHANGES:
        converted.hosts[name]["flashinfer_discard_changes"] = True
    shown = {name: converted.run("--check", "--diff", f"--limit={name}") for name in CHANGES}
    assert {name: versions(converted, name) for name in CHANGES} == before
    print(converted.run())
    for name in CHANGES:
        after, evidence = versions(converted, name), converted.evidence(name)
        assert evidence["result"] == "verified"
        assert shown_moves(shown[name], "+") == after - before[name], shown[name]
        assert shown_moves(shown[name], "-") == before[name] - after, shown[name]
        gone = {row["name"] for row in evidence["moves"]["removed"]}
        assert {"pynvml", "nvidia-ml-py"} <= gone and any(
            note.startswith("packaging, changed since") for note in evidence["notes"]
        )
        state = converted.folder / "environments" / f".{name}.gpu_stack"
        kept = [*state.glob("transactions/*/tree"), *state.glob("held-back/*")]
        assert any([*tree.glob("lib/python3*/site-packages/pynvml-*")] for tree in kept)
        record = converted.environment(name) / "etc/ocrfleet/flashinfer.json"
        brought = {
            "none": None,
            "another-method": {"flashinfer-python", "tabulate"},
            "another-release": {"flashinfer-python"},
        }
        assert (set(json.loads(record.read_text())["packages"]) if record.exists() else None) == brought[name]
