# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests that must be refused, with the real uv and the real package index.

The environment is a real venv in which the stack's central packages are only metadata: the resolver sees them as
installed, and they cost nothing. After each request every file is as it was before.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile

import light_stack
import made_environment
import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import distributions, package_plan
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.uv import Failed, Sources, Unsatisfiable, Uv

STACK = {"torch": "2.8.0", "vllm": "0.11.0", "torchvision": "0.23.0", "xformers": "0.0.32.post1", "triton": "3.4.0"}


@pytest.fixture
def stack():
    return STACK


@pytest.fixture
def environment(tmp_path, monkeypatch, stack):
    tree = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tree)], check=True)
    (site,) = (tree / "lib").glob("python3*/site-packages")
    monkeypatch.setattr(made_environment, "SITE", str(site.relative_to(tree)))
    for name, version in stack.items():
        made_environment.add_distribution(tree, name, version, {f"{name}/__init__.py": ""})
    before = contents(tree)
    yield str(tree)
    assert contents(tree) == before


def contents(tree):
    found = {}
    for folder, _folders, files in os.walk(tree):
        for name in files:
            if folder == str(tree) and name == ".lock":
                continue  # uv's own, empty, in a venv's top folder
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                found[path] = (os.lstat(path).st_mtime_ns, hashlib.sha256(file.read()).hexdigest())
    return found


@pytest.fixture
def ask(environment, tmp_path):
    def make(*requirements, sources=None, **request):
        folder = tmp_path / "request"
        folder.mkdir(exist_ok=True)
        uv = Uv("uv", Stage(environment), sources or Sources(), str(folder), 300)
        request.setdefault("protect", ["all"])
        installed, damaged = distributions.installed(environment), distributions.damaged(environment)
        wanted = package_plan.Request(list(requirements), cuda_major=12, **request)
        return uv, package_plan.make(uv, wanted, installed, damaged)

    return make


def moves(request: str, moved: str, both: str) -> str:
    """The refusal of a request that names another version of a protected package."""
    return (
        f"Refused: installing {request} would move protected packages: {moved}. Why: Because the request asks for "
        f"{request} and {both}, we can conclude that your requirements are unsatisfiable. "
        "Take a release whose needs are met here (fi_version: auto), or leave what may move out of protect "
        "(flashinfer_protect)."
    )


def missing(pin: str) -> str:
    return (
        f"Because there is no version of {pin} and the request asks for {pin}, we can conclude that your requirements "
        "are unsatisfiable."
    )


@pytest.mark.parametrize(
    ("request_", "error", "said"),
    [
        (
            "xformers==0.0.28.post1",
            package_plan.Refused,
            moves(
                "xformers==0.0.28.post1",
                "torch 2.8.0 -> 2.4.1 (required by xformers), triton 3.4.0 -> 3.0.0 (required by torch), "
                "xformers 0.0.32.post1 -> 0.0.28.post1",
                "xformers==0.0.32.post1",
            ),
        ),
        (
            "torchvision==0.19.1",
            package_plan.Refused,
            moves(
                "torchvision==0.19.1",
                "torch 2.8.0 -> 2.4.1 (required by torchvision), torchvision 0.23.0 -> 0.19.1, "
                "triton 3.4.0 -> 3.0.0 (required by torch)",
                "torchvision==0.23.0",
            ),
        ),
        (
            "vllm==0.10.1",
            package_plan.Refused,
            moves(
                "vllm==0.10.1",
                "torch 2.8.0 -> 2.7.1 (required by compressed-tensors, torchaudio, torchvision, vllm, xformers, "
                "xgrammar), torchvision 0.23.0 -> 0.22.1 (required by vllm), triton 3.4.0 -> 3.3.1 (required by torch, "
                "xgrammar), vllm 0.11.0 -> 0.10.1, xformers 0.0.32.post1 -> 0.0.31 (required by vllm)",
                "vllm==0.11.0",
            ),
        ),
        ("flashinfer-python==99.0", Unsatisfiable, missing("flashinfer-python==99.0")),
        # The newest FlashInfer has no cubins of its version on the index: none are better than others.
        ("flashinfer-cubin==0.7.2.post1", Unsatisfiable, missing("flashinfer-cubin==0.7.2.post1")),
    ],
)
def test_a_request_that_cannot_be_is_refused_and_says_why(ask, request_, error, said):
    with pytest.raises(error) as refusal:
        ask(request_)
    assert str(refusal.value) == said


@pytest.mark.parametrize("stack", [{"torch": "2.8.0+cu128", "vllm": "0.11.0+ours"}])
def test_what_no_index_has_keeps_no_plan_away(ask, tmp_path):
    """PyTorch of its own index, and a package that was built here: only the environment has them."""
    folder = tmp_path / "release"
    light_stack.wheel(folder, "new", "1.0", "Requires-Dist: torch\nRequires-Dist: vllm\nRequires-Dist: tabulate\n", {})
    _uv, plan = ask("new==1.0", sources=Sources(find_links=(str(folder),)))
    assert [change.name for change in plan.changes] == ["new", "tabulate"]
    assert plan.required_by == {"new": [], "tabulate": ["new"]}


@pytest.mark.parametrize("stack", [{"torch": "2.8.0+cu128", "ours": "1.0"}])
def test_a_conflict_is_explained_where_no_index_has_what_is_installed(ask, tmp_path):
    folder = tmp_path / "release"
    for name, version, needs in (("new", "1.0", ("torch==2.7.1+ours", "ours")), ("torch", "2.7.1+ours", ())):
        light_stack.wheel(folder, name, version, "".join(f"Requires-Dist: {need}\n" for need in needs), {})
    with pytest.raises(package_plan.Refused, match=r"torch 2.8.0\+cu128 -> 2.7.1\+ours"):
        ask("new==1.0", sources=Sources(find_links=(str(folder),)))


def test_a_file_with_another_hash_than_the_lock_says_is_not_installed(ask):
    lock = "tabulate==0.9.0 --hash=sha256:" + "0" * 64 + "\n"
    uv, plan = ask("tabulate==0.9.0", lock=lock, lock_exact=True)
    with pytest.raises(Failed, match="(?s)Hash mismatch for `tabulate==0.9.0`.*Expected:.*Computed:"):
        uv.install(plan.pins, lock, [], plan.constraints)


def test_what_one_host_resolved_its_like_take_by_its_lock(ask):
    """With the extras and companions of a real release, of which only the metadata is fetched."""
    wanted, optional = "flashinfer-python==0.6.13", ["flashinfer-cubin==0.6.13"]
    allowed = {"optional": optional, "allow": ["cuda-bindings", "nvidia-cutlass-dsl-libs-cu13", "nvidia-cuda-nvcc"]}
    uv, plan = ask(wanted, **allowed)
    lock = uv.lock(plan.pins)
    _uv, again = ask(wanted, lock=lock, lock_exact=True, **allowed)
    assert sorted(again.pins) == sorted(plan.pins) and len(plan.pins) > 10
    with pytest.raises(package_plan.Refused, match="depends on: xdoctest 1.1.0"):
        ask(wanted, lock=f"{lock}xdoctest==1.1.0 --hash=sha256:{'0' * 64}\n", lock_exact=True, **allowed)


def test_an_index_of_one_package_can_give_no_other(ask, tmp_path):
    folder = tmp_path / "index"
    folder.mkdir()
    for name, version in (("torch", "99.0"), ("flashinfer_jit_cache", "0.3.1")):
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            info = f"{name}-{version}.dist-info"
            needs = "Requires-Dist: torch\n" if name != "torch" else ""
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    only = {"name": "one", "url": f"file://{folder}", "packages": ["flashinfer-jit-cache"], "flat": True}
    # Nothing is protected, so that only the index's own bounds hold torch back.
    _uv, plan = ask("flashinfer-jit-cache==0.3.1", "torch>=2.8", protect=[], sources=Sources(indexes=(only,)))
    assert {change.name: change.after for change in plan.changes} == {"flashinfer-jit-cache": "0.3.1"}
    with pytest.raises(Unsatisfiable, match=r"torch(>=|==)99|torch>=99"):
        ask("flashinfer-jit-cache==0.3.1", "torch>=99", protect=[], sources=Sources(indexes=(only,)))
