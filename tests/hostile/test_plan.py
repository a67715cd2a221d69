# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `--check --diff` shows is what the run then does. The index and uv are real, FlashInfer is a stand-in."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

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
