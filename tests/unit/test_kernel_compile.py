# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernels are compiled for a named architecture without a GPU, and whoever cannot compile says why."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    flashinfer_install,
    kernel_compile,
    kernel_pack,
    staging,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.distributions import Distribution
from ansible_collections.ocrfleet.gpu_stack.plugins.modules import kernel_pack as module

FAKE = Path(__file__).parent / "fixtures" / "gpu"
BOUND = {
    "flashinfer": "0.6.13",
    "torch": "2.8.0+cu128",
    "cuda": "12.8",
    "python": "cp311",
    "architecture": "90",
    "machine": "x86_64",
}
READY = {"ready": True, "cuda_home": "/opt/cuda", "nvcc": "/opt/cuda/bin/nvcc", "missing": [], "mismatch": ""}


class Stage(staging.Stage):
    @property
    def python(self) -> str:
        return sys.executable


def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: dict | None = None, **more: str) -> module.Host:
    """An environment whose torch and FlashInfer are stand-ins: their compiler writes down what it was asked."""
    monkeypatch.setattr(module.activation, "find_compiler", lambda *_arguments: {**READY, **(compiler or {})})
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    env = {
        "PYTHONPATH": os.pathsep.join(str(FAKE / name) for name in ("fake_torch", "fake_flashinfer")),
        "FLASHINFER_WORKSPACE_BASE": str(tmp_path / "base"),
        **more,
    }
    installed = {"flashinfer-python": Distribution("flashinfer-python", "0.6.13", str(tmp_path / "site/x.dist-info"))}
    return module.Host(Stage(str(tmp_path)), installed, env, BOUND, "", str(scratch))


@pytest.mark.parametrize(
    ("cores", "memory", "allowed"), [(16, 64, 16), (16, 8.0, 2), (2, 64, 2), (4, 1.5, 1), (4, None, 4)]
)
def test_as_many_jobs_as_memory_and_cores_bear(cores: int, memory: float | None, allowed: int) -> None:
    assert flashinfer_install.jobs(cores, memory) == allowed


@pytest.mark.parametrize("folders", ["one", "each"])
def test_hopper_gets_its_own_prefill_beside_the_common_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: str
) -> None:
    # 20 GB bear six compilers, which the modules that are compiled side by side share.
    monkeypatch.setattr(flashinfer_install.os, "sched_getaffinity", lambda _process: set(range(32)))
    monkeypatch.setattr(flashinfer_install.machine, "memory_gb", lambda: 20.0)
    made = host(tmp_path, monkeypatch, FAKE_FOLDERS=folders)
    found = module.compiled(made, 60, False)
    assert (found["changed"], found["compiled"]) == (True, ["prefill_fa2", "prefill_fa3", "sampling"])
    assert module.compiled(made, 60, False)["compiled"] == [], "what is compiled is not compiled again"
    asked = json.loads((tmp_path / "base" / "sampling.json").read_text())
    assert asked["environment"] == {
        "CUDA_HOME": "/opt/cuda",
        "CUDA_VISIBLE_DEVICES": "",
        "FLASHINFER_CUDA_ARCH_LIST": "9.0a",
        "MAX_JOBS": "6" if folders == "one" else "2",
        "TORCH_CUDA_ARCH_LIST": "9.0",
    }


def test_check_mode_compiles_nothing_and_names_the_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = module.compiled(host(tmp_path, monkeypatch), 60, True)
    assert found["compiled"] == ["prefill_fa2", "prefill_fa3", "sampling"]
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize(
    ("compiler", "more", "says"),
    [
        ({"ready": False, "missing": ["nvcc: no CUDA toolkit"]}, {}, "none that does: nvcc: no CUDA"),
        ({"ready": False, "mismatch": "nvcc 13.0 does not match"}, {}, "none that does: nvcc 13.0 does not match"),
        ({}, {"FAKE_COMPILE": "fail"}, "RuntimeError: Ninja build failed"),
        ({}, {"FAKE_COMPILE": "link"}, "/usr/bin/ld: cannot find -lcuda"),
        ({}, {"FAKE_COMPILE": "hang"}, "did not end within 2 s"),
        ({}, {"FAKE_COMPILE": "silent"}, "expected the names of the compiled modules"),
    ],
)
def test_why_nothing_was_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: dict, more: dict, says: str
) -> None:
    with pytest.raises(kernel_pack.Refused, match=says):
        module.compiled(host(tmp_path, monkeypatch, compiler, **more), 2 if "hang" in more.values() else 60, False)


@pytest.mark.parametrize(
    ("architecture", "flashinfer", "expected"),
    [
        ("75", "0.3.1", "7.5"),
        ("89", "0.6.13", "8.9"),
        ("90", "0.3.1", "9.0a"),
        ("90", "0.6.13", "9.0a"),
        ("100", "0.5.3", "10.0a"),
        ("120", "0.5.3", "12.0a"),
        ("120", "0.6.13", "12.0"),
    ],
)
def test_the_architecture_in_flashinfers_words(architecture: str, flashinfer: str, expected: str) -> None:
    assert kernel_pack.compile_for(architecture, flashinfer)["FLASHINFER_CUDA_ARCH_LIST"] == expected


@pytest.mark.parametrize(("major", "backends"), [(7, ["fa2"]), (8, ["fa2"]), (9, ["fa2", "fa3"]), (12, ["fa2"])])
def test_attention_backends(major: int, backends: list[str]) -> None:
    assert kernel_compile.attention_backends(major) == backends


@pytest.mark.parametrize(
    ("gpu", "extra", "wanted", "why"),
    [
        ("", {}, True, ""),
        ("90", {}, True, ""),
        ("89", {}, False, "the GPU here is of architecture 89"),
        ("90", {"flashinfer-jit-cache": "0.6.13+cu128"}, False, "flashinfer-jit-cache is installed"),
        ("90", {"flashinfer-jit-cache": "0.6.12+cu128"}, True, ""),
    ],
)
def test_whether_a_pack_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: str, extra: dict, wanted: bool, why: str
) -> None:
    made = host(tmp_path, monkeypatch)
    made.gpu = gpu
    made.installed.update({name: Distribution(name, version, "/site/x") for name, version in extra.items()})
    found = module.named(made, [])
    assert (found["wanted"], found["can_compile"]) == (wanted, True)
    assert why in found["why_not"]
