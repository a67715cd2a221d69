# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The EXAMPLES of each module and filter run: each on a host of its own, all hosts at once.

Ansible, the modules and their files are real; PyTorch, vllm, OlmOCR and FlashInfer are stand-ins. What needs a GPU, a
server, root or gigabytes runs in check mode, and an example that cannot run here at all is seen to fail.
"""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import light_stack
import pytest
import yaml
from documented import texts
from light_hosts import REPOSITORY, TOOLS, LightHosts
from package_index import served
from test_bundle import finished
from test_document import EVIDENCE as VERIFIED
from test_kernel_pack import Wave
from test_openpgp import FIRST, KEYS, SECOND, openpgp
from test_pinned_key import package

EVIDENCE = json.loads((REPOSITORY / "tests/unit/fixtures/report_evidence.json").read_text(encoding="utf-8"))
FILTERS = sorted(path.stem for path in (REPOSITORY / "plugins/filter").glob("*.py"))
# What the filters' examples take from variables of the reader's.
FILTERED = {
    "path": "verified.json",
    "results": {},
    "evidence": EVIDENCE,
    "stored": EVIDENCE,
    "result": {"levels": {}, "gate": {}},
    "levels": EVIDENCE["benchmark"],
}
MODULES = sorted(path.stem for path in (REPOSITORY / "plugins/modules").glob("*.py"))

# What is a reader's own in the examples, and what stands for it here; FOLDER is that of the test.
VALUES = {
    "/opt/conda/envs/.olmocr-optimized.gpu_stack/transactions/20261124/baseline": "FOLDER/environments/baseline",
    "/opt/conda/envs/.olmocr-optimized.gpu_stack/transactions/20261126T090000.000000Z-1a2b/tree": (
        "FOLDER/environments/baseline"
    ),
    "/home/ocr/miniforge3/envs/olmocr-optimized": "FOLDER/environments/transaction",
    "~/.local/share/ocrfleet/envs/": "FOLDER/environments/",
    "/opt/ocrfleet/bin/uv": str(TOOLS / "uv"),
    "/opt/ocrfleet/": "FOLDER/host/",
    "/media/usb/bundle": "FOLDER/bundle",
    "/srv/ocr-pipeline": "FOLDER/project",
    "/var/lib/ocrfleet/": "FOLDER/host/",
    ".venv/bin/uv": str(TOOLS / "uv"),
    "roles/olmocr/": f"{REPOSITORY}/roles/olmocr/",
    "https://github.com/flashinfer-ai/flashinfer.git": "FOLDER/flashinfer",
    "https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/cuda-keyring_1.1-1_all.deb": (
        "FOLDER/keyring/a.deb"
    ),
    "- EB69 3B30 35CD 5710 E231 E123 A4B4 6996 3BF8 63CC": f"[{FIRST}, {SECOND}]",
    "/usr/share/keyrings/": "FOLDER/host/keyrings/",
    "[olmocr.service]": "[]",  # there is no systemd in a container
    'architecture: "89"': 'architecture: "90"',  # the stand-in for FlashInfer compiles for no other one
    "become_user: olmocr": f"become_user: {getpass.getuser()}",
}
# Where the environment of a module is another one: more can be asked of PyTorch and FlashInfer there, or less is there.
ELSEWHERE = {"flashinfer_info": "FOLDER/asked/", "kernel_pack": "FOLDER/asked/", "uv_packages": "FOLDER/bare/"}
# Modules whose examples run in check mode only, and why.
CHECKED_ONLY = {
    "benchmark": "measures on a GPU, or by a server that answers",
    "bundle_make": "downloads gigabytes",
    "conda_environment": "needs conda",
    "cuda_link": "the link is /usr/local/cuda, of this machine",
    "gpu_smoke": "needs a GPU, or the real PyTorch",
    "model_weights": "downloads gigabytes",
}
# Modules whose examples change something here; the others look, or find what they are to bring.
CHANGING = {
    "activation",
    "env_transaction",
    "kernel_pack",
    "package_drift",
    "pinned_key",
    "project_documents",
    "report_files",
    "source_wheel",
    "speedup_plot",
    "uv_packages",
}
# Tasks that can run here in neither way, and what runs such a one.
EXCEPTED = {
    ("kernel_pack", "Place the pack in the candidate, if the release team signed it"): (
        "nobody signs here what is packed; tests/roles/test_kernel_pack.py places a signed one"
    ),
}


def examples(module: str, folder: Path) -> list[dict[str, Any]]:
    values = {**VALUES, "/opt/conda/envs/": ELSEWHERE.get(module, "FOLDER/environments/")}
    longest_first = "|".join(re.escape(own) for own in sorted(values, key=len, reverse=True))
    text = re.sub(longest_first, lambda found: values[found[0]], texts(module)["EXAMPLES"])
    return list(yaml.safe_load(text.replace("FOLDER", str(folder))))


def is_excepted(module: str, task: dict[str, Any]) -> bool:
    return (module, task["name"]) in EXCEPTED


def prepare(hosts: LightHosts) -> None:
    """What a reader's host would have, and the control node."""
    folder = hosts.folder
    asked = Wave(folder / "asked")
    hosts.wheel(hosts.wheels, *light_stack.WHEELS[3])
    for name in ("olmocr-optimized", ".olmocr-optimized.candidate"):
        hosts.add(name, ("flashinfer-python==0.3.1",))
        asked.add(name, gpu=False)
    for name in ("baseline", "transaction", "../bare/olmocr-optimized"):
        hosts.add(name)
    hosts.hosts.clear()
    finished(folder / "bundle")
    hosts.sources(folder / "flashinfer")
    (folder / "project").mkdir()
    (folder / "project/requirements.txt").write_text("olmocr\n")
    (folder / "keyring").mkdir()
    package(folder / "keyring", {"usr/share/keyrings/a.gpg": openpgp.dearmored(KEYS)})
    (folder / "verified.json").write_text(json.dumps(VERIFIED))
    (folder / "report.md.j2").write_text("{{ inventory_hostname }}\n")
    (folder / "release-team.pub").write_text("ssh-ed25519 AAAA release\n")


def run(hosts: LightHosts, index: str, tasks: dict[str, list[dict[str, Any]]], *options: str) -> dict[str, str]:
    """What each host, named freely, ended with: its line of the recap, and what was said of its failure."""
    for name, listed in tasks.items():
        (hosts.folder / f"{name}.tasks.yml").write_text(yaml.safe_dump(listed, sort_keys=False))
    hosts.hosts = {name: {} for name in tasks}
    play = {
        "gather_facts": False,
        "vars": FILTERED,
        "environment": {
            "PATH": f"{hosts.folder}/asked/cuda/bin:{hosts.environ()['PATH']}",
            "UV_DEFAULT_INDEX": f"http://{index}/simple",
            "FAKE": "no_gpu",
            "FAKE_COMPILE": "",
        },
        "tasks": [{"ansible.builtin.include_tasks": f"{hosts.folder}/{{{{ inventory_hostname }}}}.tasks.yml"}],
    }
    # A gate for waves wants them one after another; the rest need not wait for each other.
    plays = [
        {**play, "hosts": "all:!rollout_gate", "strategy": "ansible.builtin.free"},
        {**play, "hosts": "rollout_gate"},
    ]
    path = hosts.folder / "examples.yml"
    path.write_text(yaml.safe_dump(plays, sort_keys=False))
    said = hosts.run(*options, playbook=str(path))
    recap = {found[1]: found[2] for found in re.finditer(r"^(\S+) +: (ok=.*?) *$", said, re.M)}
    assert recap.keys() == tasks.keys(), said
    failures = dict(re.findall(r"^fatal: \[(\S+?)(?: -> \S+)?\]: (.*?)(?=\n\n|\Z)", said, re.M | re.S))
    return {name: f"{line}\n{failures.get(name, '')}" for name, line in recap.items()}


def went_well(ended: str) -> bool:
    return re.search(r"ok=[1-9].* unreachable=0 +failed=0 ", ended) is not None


def has_changed(ended: str) -> bool:
    return re.search(r"changed=[1-9]", ended) is not None


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> LightHosts:
    made = LightHosts(tmp_path_factory.mktemp("examples"))
    prepare(made)
    return made


@pytest.fixture(scope="module")
def index(hosts: LightHosts) -> Iterator[str]:
    with served(hosts.wheels, others=True) as address:
        yield address


def test_what_is_excepted_stands_in_the_examples() -> None:
    named = {(module, task["name"]) for module in MODULES for task in yaml.safe_load(texts(module)["EXAMPLES"])}
    assert EXCEPTED.keys() <= named
    assert set(CHECKED_ONLY) <= set(MODULES)
    text = "\n".join(texts(module)["EXAMPLES"] for module in MODULES)
    assert [own for own in VALUES if own not in text] == []


def test_the_examples_run(hosts: LightHosts, index: str) -> None:
    tasks = {
        module: [task for task in examples(module, hosts.folder) if not is_excepted(module, task)]
        for module in MODULES
        if module not in CHECKED_ONLY
    }
    filters = {name: yaml.safe_load(texts(name, "filter")["EXAMPLES"]) for name in FILTERS}
    ended = run(hosts, index, {**tasks, **filters})
    failed = [f"{name}: {told}" for name, told in ended.items() if not went_well(told)]
    assert not failed, "\n".join(failed)
    assert {name for name, told in ended.items() if has_changed(told)} == CHANGING
    assert "<svg" in (hosts.folder / "documents.svg").read_text()


def test_those_that_cannot_run_are_checked_and_the_excepted_fail(hosts: LightHosts, index: str) -> None:
    tasks = {module: examples(module, hosts.folder) for module in CHECKED_ONLY}
    excepted = {
        f"excepted-{number}": [task for task in examples(module, hosts.folder) if task["name"] == name]
        for number, (module, name) in enumerate(EXCEPTED)
    }
    ended = run(hosts, index, {**tasks, **excepted}, "--check")
    other = [f"{name}: {told}" for name, told in ended.items() if went_well(told) is (name in excepted)]
    assert not other, "\n".join(other)
