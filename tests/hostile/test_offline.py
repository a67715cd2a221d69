# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle, and from it the whole site.yml where there is no network: the same lock and the same report as online.

PyTorch, vllm, OlmOCR and FlashInfer are stand-ins on an index of the site's own; uv, the bundle, the network namespace
and what else is installed are real. `make test-offline` does the same with the real stack.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import light_hosts
import light_stack
import pytest
import same_report
from light_hosts import LightHosts
from package_index import served

NAME, VERSION, _NOTHING, _FILES = light_stack.WHEELS[3]
# A namespace with nothing but a loopback; what follows is the command.
ALONE = 'ip link set lo up; [ -z "$(ip route)" ]; exec "$@"'
WITHOUT_NETWORK = ("unshare", "--net", "--map-root-user", "sh", "-euc", ALONE, "sh")


def source_archive(hosts: LightHosts) -> None:
    """FlashInfer as the index has it: the sources alone."""
    with tarfile.open(hosts.wheels / f"{NAME}-{VERSION}.tar.gz", "w:gz") as archive:
        archive.add(hosts.sources(hosts.folder / "source", ("torch", "tabulate")), f"{NAME}-{VERSION}")


def baseline_lock(hosts: LightHosts, index: str) -> Path:
    lock = hosts.folder / "baseline.txt"
    flags = ["--quiet", "--generate-hashes", "--no-header", "--default-index", f"http://{index}/simple", "--refresh"]
    request = hosts.folder / "request.in"
    request.write_text("\n".join([*light_hosts.STACK, *light_hosts.WITH_IT]))
    hosts.call("uv", "pip", "compile", *flags, "--python-version", "3.11", "--output-file", lock, request)
    return lock


@pytest.fixture(scope="module")
def hosts(make_hosts: Callable[[], LightHosts]) -> LightHosts:
    hosts = make_hosts()
    needs = "".join(f"Requires-Dist: {pin}\n" for pin in (*light_hosts.STACK[:2], *light_hosts.WITH_IT))
    name, version, _needs, files = light_stack.WHEELS[2]
    hosts.wheel(hosts.wheels, name, version, needs, files)
    source_archive(hosts)
    return hosts


@pytest.fixture(scope="module")
def runs(hosts: LightHosts) -> dict[str, str]:
    """What each run printed, in the order in which they ran. ONLINE.json and OFFLINE.json are the evidence."""
    site, bundle, root = "playbooks/site.yml", str(hosts.folder / "bundle"), hosts.folder / "site"
    with served(hosts.wheels, others=True) as index:
        lock = baseline_lock(hosts, index)
        stack = {"olmocr_lock": str(lock), "pytorch_lock": str(lock), "olmocr_extras": [], "fi_method": "pypi"}
        online = {"stack_default_index": f"http://{index}/simple"}
        place = {"stack_root": str(root), "stack_environment": str(root / "envs/olmocr-optimized")}
        # The cache goes with the rest, so that the second run has nothing that the first one fetched.
        place |= {
            "stack_uv": str(root / "bin/uv"),
            "stack_cache": str(root / "cache"),
            "flashinfer_export_dir": str(root),
        }
        hosts.hosts["vm"] = {**stack, **online, **place}
        making = {**stack, **online, "bundle_dir": bundle, "flashinfer_jit_cache_index": ""}
        make = ("--extra-vars", json.dumps(making))
        printed = {
            "online": hosts.run(playbook=site),
            "bundle": hosts.run(*make, playbook="playbooks/bundle.yml"),
            "bundle again": hosts.run(*make, playbook="playbooks/bundle.yml"),
        }
    (hosts.folder / "ONLINE.json").write_text(json.dumps(hosts.evidence("vm")))
    root.rename(hosts.folder / "site-online")
    hosts.hosts["vm"] = {**stack, **place, "stack_bundle": bundle}
    printed["offline"] = hosts.run(playbook=site, within=WITHOUT_NETWORK)
    (hosts.folder / "OFFLINE.json").write_text(json.dumps(hosts.evidence("vm")))
    printed["offline again"] = hosts.run(playbook=site, within=WITHOUT_NETWORK)
    # As in an inventory that is used online too: of what cannot be fetched here the checksum says nothing.
    url = {"flashinfer_source": "https://example.invalid/x.tar.gz", "flashinfer_source_checksum": f"sha256:{64 * '0'}"}
    hosts.hosts["vm"] |= {"fi_method": "source", **url}
    printed["offline, from source"] = hosts.run(playbook=site, within=WITHOUT_NETWORK)
    return printed


def test_each_run_ends_well_and_a_second_has_nothing_to_do(runs: dict[str, str]) -> None:
    for name, text in runs.items():
        assert "failed=0" in text and "unreachable=0" in text, f"{name}:\n{text}"
        assert ("changed=0" in text) is name.endswith("again"), f"{name}:\n{text}"


@pytest.mark.usefixtures("runs")
def test_the_lock_and_the_report_are_those_of_the_online_run(hosts: LightHosts) -> None:
    assert same_report.main(hosts.folder / "ONLINE.json", hosts.folder / "OFFLINE.json") == 0
    online, offline = (json.loads((hosts.folder / f"{name}.json").read_text()) for name in ("ONLINE", "OFFLINE"))
    assert online["fingerprint"] == offline["fingerprint"]
    assert {row["name"] for row in offline["plan"]} == {"flashinfer-python", "tabulate"}


@pytest.mark.usefixtures("runs")
def test_what_the_bundle_holds_can_be_built_from_source_too(hosts: LightHosts) -> None:
    evidence = hosts.evidence("vm")
    assert (evidence["result"], evidence["method"]) == ("verified", "source")
    assert evidence["wheel"]["source"].startswith(str(hosts.folder / "bundle"))
