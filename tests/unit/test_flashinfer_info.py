# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each thing that does not fit together is named, and a healthy host has no problem."""

from __future__ import annotations

import copy
import hashlib
import re
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    commands,
    flashinfer_fit,
    flashinfer_install,
    nvidia,
    staging,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.distributions import Distribution
from ansible_collections.ocrfleet.gpu_stack.plugins.modules import flashinfer_info
from made_environment import add_distribution

NVCC_128 = """nvcc: NVIDIA (R) Cuda compiler driver
Copyright (c) 2005-2025 NVIDIA Corporation
Built on Fri_Feb_21_20:23:50_PST_2025
Cuda compilation tools, release 12.8, V12.8.93
Build cuda_12.8.r12.8/compiler.35583870_0
"""
NVCC_130 = """nvcc: NVIDIA (R) Cuda compiler driver
Copyright (c) 2005-2025 NVIDIA Corporation
Built on Wed_Aug_20_01:58:59_PM_PDT_2025
Cuda compilation tools, release 13.0, V13.0.88
Build cuda_13.0.r13.0/compiler.36424714_0
"""


def installed(**versions: str) -> dict[str, Distribution]:
    names = {name.replace("_", "-"): version for name, version in versions.items()}
    return {name: Distribution(name, version, f"/site/{name}.dist-info") for name, version in names.items()}


@pytest.mark.parametrize(
    ("vllm", "flashinfer", "said"),
    [
        ("0.11.0", "0.3.1", "^$"),
        ("0.11.0", "0.6.13", "attention path breaks and its sampler path works .*fi_version: auto takes"),
        ("0.11.0", "0.4.1", "attention path breaks and its sampler path breaks"),
        ("0.20.2", "0.6.13", "^whether FlashInfer 0.6.13 works with vllm 0.20.2 is not known"),
    ],
)
def test_what_is_to_be_known_of_a_release_and_vllm(vllm: str, flashinfer: str, said: str) -> None:
    assert re.search(said, flashinfer_install.remark(vllm, flashinfer))


@pytest.mark.parametrize(
    ("versions", "problem"),
    [
        ({"flashinfer_python": "0.3.1"}, ""),
        ({"flashinfer_python": "0.6.13", "flashinfer_cubin": "0.6.13", "flashinfer_jit_cache": "0.6.13+cu128"}, ""),
        (
            {"flashinfer_python": "0.7.2.post1", "flashinfer_cubin": "0.6.13"},
            "flashinfer-cubin 0.6.13 does not match flashinfer-python 0.7.2.post1",
        ),
        (
            {"flashinfer_python": "0.6.13", "flashinfer_jit_cache": "0.6.12+cu128"},
            "flashinfer-jit-cache 0.6.12+cu128 does not match flashinfer-python 0.6.13",
        ),
        ({"flashinfer_cubin": "0.6.13"}, "flashinfer-cubin is installed, flashinfer-python is not"),
        ({}, ""),
    ],
)
def test_packages(versions: dict[str, str], problem: str) -> None:
    _, problems = flashinfer_install.packages(installed(**versions))
    assert len(problems) == bool(problem)
    assert problem in "".join(problems)


@pytest.mark.parametrize(
    ("version", "declares", "expected"),
    [
        ("0.3.1", "flashinfer-python==0.3.1", True),
        ("0.3.1+local", "flashinfer-python==0.3.1", True),
        ("0.6.13", "flashinfer-python==0.3.1", False),
        ("", "flashinfer-python==0.3.1", None),
        ("0.3.1", "", None),
    ],
)
def test_satisfies(version: str, declares: str, expected: bool | None) -> None:
    assert flashinfer_install.satisfies(version, declares) is expected


@pytest.mark.parametrize(
    ("vllm", "flashinfer", "attention", "sampler"),
    [
        ("0.11.0", "0.3.1", "works", "works"),
        ("0.11.0+cu128", "0.3.1.post1", "works", "works"),
        ("0.11.0", "0.4.1", "breaks", "breaks"),
        ("0.11.0", "0.5.0", "breaks", "works"),
        ("0.11.0", "0.7.2.post1", "breaks", "works"),
        ("0.11.0", "0.2.5", "unknown", "unknown"),
        ("0.20.2", "0.6.13", "unknown", "unknown"),
    ],
)
def test_compatibility(vllm: str, flashinfer: str, attention: str, sampler: str) -> None:
    found = flashinfer_install.compatibility(vllm, flashinfer)
    assert (found["attention"], found["sampler"]) == (attention, sampler)
    assert found["source"]


@pytest.mark.parametrize(
    ("capability", "flashinfer", "variables", "attention", "sampler"),
    [
        ("9.0", "0.3.1", {}, "FLASH_ATTN", "FLASHINFER"),
        ("8.9", "0.3.1", {"VLLM_USE_FLASHINFER_SAMPLER": "0"}, "FLASH_ATTN", "PYTORCH"),
        ("10.0", "0.3.1", {}, "FLASHINFER", "FLASHINFER"),
        ("10.0", "", {}, "FLASH_ATTN", "PYTORCH"),
        ("7.5", "0.2.2", {}, "FLEX_ATTENTION", "PYTORCH"),
        ("", "0.3.1", {}, "unknown", "FLASHINFER"),
        ("9.0", "0.3.1", {"VLLM_ATTENTION_BACKEND": "FLASHINFER"}, "FLASHINFER", "FLASHINFER"),
    ],
)
def test_vllm_use(capability: str, flashinfer: str, variables: dict, attention: str, sampler: str) -> None:
    found = flashinfer_install.vllm_use("0.11.0", flashinfer, capability, variables)
    assert (found["attention"], found["sampler"]) == (attention, sampler)


@pytest.mark.parametrize(
    ("result", "version", "problem"),
    [
        (commands.Result(["nvcc"], 0, NVCC_128, "", 0.1), "12.8", ""),
        (commands.Result(["nvcc"], 0, NVCC_130, "", 0.1), "13.0", ""),
        (commands.Result(["nvcc"], 127, "", "cannot start nvcc: No such file or directory", 0.1), "", "No such file"),
        (commands.Result(["nvcc"], -9, "", "", 30, timed_out=True), "", "did not end within 30 s"),
        (commands.Result(["nvcc"], 0, "hello", "", 0.1), "", "ended with exit code 0\nhello"),
    ],
)
def test_nvcc(result: commands.Result, version: str, problem: str) -> None:
    found = flashinfer_install.nvcc("/usr/local/cuda", lambda argv, timeout: result, 30)
    assert found["version"] == version
    assert problem in found["problem"]
    assert bool(problem) == bool(found["problem"])


def test_cuda_home_is_found_as_flashinfer_finds_it(tmp_path: Path) -> None:
    nvcc = tmp_path / "cuda" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text("")
    nvcc.chmod(0o755)
    path = str(nvcc.parent)
    assert flashinfer_install.cuda_home({"CUDA_HOME": "/a", "CUDA_PATH": "/b"}, path) == ("/a", "CUDA_HOME")
    assert flashinfer_install.cuda_home({"CUDA_PATH": "/b"}, path) == ("/b", "CUDA_PATH")
    assert flashinfer_install.cuda_home({}, path) == (str(tmp_path / "cuda"), "PATH")


def test_headers(tmp_path: Path) -> None:
    (tmp_path / "targets/x86_64-linux/include").mkdir(parents=True)
    header = tmp_path / "targets/x86_64-linux/include/curand.h"
    header.write_text("")
    assert flashinfer_install.headers(str(tmp_path)) == {"curand.h": str(header), "cublasLt.h": ""}
    assert flashinfer_install.headers("") == {"curand.h": "", "cublasLt.h": ""}


def test_compiled_modules_of_cache_and_pack(tmp_path: Path) -> None:
    cache, package = tmp_path / "cache", tmp_path / "site" / "flashinfer"
    files = {
        cache / "90/cached_ops/sampling/sampling.so": b"\x7fELF libcudart.so.13\0",
        cache / "0.6.13/90a/cached_ops/page/page.so": b"\x7fELF libcudart.so.12\0",
        cache / "90/cached_ops/sampling/other.so": b"\x7fELF",
        package / "data/aot/norm/norm.so": b"",
        package / "data/aot/page/page.so": b"by hand",
        package / "data/aot/ocrfleet-pack.json": b'{"modules": {"norm": {"sha256": "%s"}}}'
        % hashlib.sha256(b"").hexdigest().encode(),
    }
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    found = flashinfer_install.compiled_modules(str(cache), str(package), {})
    assert [(one["name"], one["origin"], one["flashinfer"], one["architecture"], one["cudart"]) for one in found] == [
        ("sampling", "cache", "", "90", "13"),
        ("page", "cache", "0.6.13", "90a", "12"),
        ("norm", "pack", "", "", ""),
        ("page", "unlisted", "", "", ""),
    ]


@pytest.mark.parametrize(
    ("torch", "flashinfer", "expected"),
    [
        ("", "", {"torch": "2.8.0+cu128", "flashinfer": "0.3.1", "problem": ""}),
        ("raise ImportError('libcudnn.so.9')", "", {"torch": "", "torch_problem": "ImportError: libcudnn.so.9"}),
        ("", "raise RuntimeError('flashinfer-cubin version')", {"torch": "2.8.0+cu128", "flashinfer": ""}),
        ("", "import os; os.abort()", {"torch": "2.8.0+cu128", "flashinfer": "", "problem": "was ended by signal 6"}),
        ("", "import time; time.sleep(60)", {"torch": "2.8.0+cu128", "problem": "did not end within 2 s"}),
    ],
)
def test_the_probe_outlives_an_import(tmp_path: Path, torch: str, flashinfer: str, expected: dict) -> None:
    (tmp_path / "torch.py").write_text(
        f"{torch}\n__version__ = '2.8.0+cu128'\nclass version: cuda = '12.8'\n"
        "class cuda:\n    is_available = staticmethod(lambda: False)\n"
        "class _C:\n    _cuda_getArchFlags = staticmethod(lambda: 'sm_80 sm_90')\n"
    )
    (tmp_path / "flashinfer").mkdir()
    (tmp_path / "flashinfer" / "__init__.py").write_text(f"{flashinfer}\n__version__ = '0.3.1'\n")

    class Stage(staging.Stage):
        @property
        def python(self) -> str:
            return sys.executable

    found = flashinfer_install.probe(
        Stage("/nowhere"), str(tmp_path), 2, {"PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": ""}
    )
    for key, value in expected.items():
        assert value in found[key] and bool(value) == bool(found[key]), found


HEALTHY: dict = {
    "packages": {"flashinfer-python": "0.3.1", "flashinfer-cubin": "", "flashinfer-jit-cache": ""},
    "packages_match": True,
    "mismatches": [],
    "vllm": {
        "version": "0.11.0",
        "declares": "flashinfer-python==0.3.1",
        "satisfied": True,
        "compatibility": {"attention": "works", "sampler": "works", "source": "tried"},
        "uses": {"attention": "FLASH_ATTN", "sampler": "FLASHINFER", "why": ""},
    },
    "probe": {
        "torch_cuda": "12.8",
        "architectures": ["sm_80", "sm_90"],
        "torch_problem": "",
        "flashinfer_problem": "",
        "problem": "",
    },
    "compiler": {"missing": [], "mismatch": "", "nvcc_problem": "", "nvcc_version": "12.8"},
    "compiled_modules": [],
    "caches": [{"name": "flashinfer", "path": "/home/o/.cache/flashinfer", "exists": True, "writable": True}],
    "cuda_libraries": {"installed": {"12": ["a-cu12==12.8"]}, "loaded": ["/e/libcudart.so.12"]},
    "gpu": nvidia.Survey("570.124.06", [nvidia.Gpu(0, "NVIDIA L4", "GPU-1", "8.9", 23034, 1, False)]),
    "variables": {},
}
NO_NVCC = {"missing": ["nvcc: none"], "mismatch": "", "nvcc_problem": "none", "nvcc_version": ""}
UNUSED = {"sampler": "PYTORCH", "attention": "FLASH_ATTN", "why": "switched off"}
PACK = [{"name": "sampling", "origin": "pack", "path": "/e/sampling.so", "cudart": "12"}]


@pytest.mark.parametrize(
    ("change", "problems", "remarks"),
    [
        ({}, [], []),
        ({"compiler": NO_NVCC}, ["nvcc: none", "OlmOCR would not start"], []),
        ({"compiler": NO_NVCC, "vllm.uses": {"sampler": "PYTORCH"}}, ["nvcc: none"], []),
        ({"compiler": NO_NVCC, "vllm.uses": UNUSED}, [], ["vllm asks for none (switched off): nvcc: none"]),
        ({"compiler.mismatch": "nvcc 13.0 does not match", "vllm.uses": UNUSED}, [], ["nvcc 13.0 does not match"]),
        ({"compiler": NO_NVCC, "gpu": nvidia.Survey(absent="none")}, [], ["no kernel can be compiled here", "none"]),
        (
            {"compiler": NO_NVCC, "compiled_modules": PACK},
            ["nvcc: none", "asks nvcc for its version before it takes a packed kernel", "OlmOCR would not start"],
            [],
        ),
        (
            {"compiler": NO_NVCC, "compiled_modules": PACK, "packages.flashinfer-python": "0.6.13"},
            [],
            ["only packed kernels can be used: nvcc: none"],
        ),
        (
            {"compiled_modules": [{**PACK[0], "cudart": "13"}]},
            ["/e/sampling.so loads libcudart.so.13 beside PyTorch's CUDA 12.8"],
            [],
        ),
        (
            {"compiled_modules": [{**PACK[0], "origin": "unlisted"}]},
            ["expected only modules of a kernel pack, found /e/sampling.so"],
            [],
        ),
        (
            # Nobody vouches for the module: it is no reason to do without a compiler.
            {"compiler": NO_NVCC, "compiled_modules": [{**PACK[0], "origin": "unlisted"}]},
            ["nvcc: none", "OlmOCR would not start", "expected only modules of a kernel pack"],
            [],
        ),
        (
            {
                "compiler": NO_NVCC,
                "compiled_modules": [{**PACK[0], "origin": "package"}],
                "packages.flashinfer-python": "0.6.13",
            },
            [],
            ["only packed kernels can be used: nvcc: none"],
        ),
        ({"compiler.mismatch": "nvcc 13.0 does not match"}, ["nvcc 13.0 does not match"], []),
        (
            {"cuda_libraries.loaded": ["/e/libcudart.so.12", "/usr/libcudart.so.12.8.90"]},
            ["loads more than one CUDA runtime, /e/libcudart.so.12 and /usr/libcudart.so.12.8.90: expected one"],
            [],
        ),
        ({"cuda_libraries.loaded": ["/e/libcudart.so.12", "/e/v.libs/libcudart.e8e8b82a.so.12"]}, [], []),
        (
            {"cuda_libraries.loaded": ["/e/libcudart.so.12", "/usr/libcudart.so.13"]},
            ["loads more than one CUDA runtime, /e/libcudart.so.12 and /usr/libcudart.so.13: expected one"],
            [],
        ),
        (
            {"cuda_libraries.installed": {"12": ["a"], "13": ["cuda-bindings==13.5.0"]}},
            [],
            ["packages for CUDA 13 beside PyTorch's CUDA 12: cuda-bindings==13.5.0"],
        ),
        (
            {
                "packages.flashinfer-python": "0.6.13",
                "vllm.satisfied": False,
                "vllm.compatibility": {"attention": "breaks", "sampler": "works", "source": "tried"},
            },
            [],
            [
                "vllm 0.11.0 asks for flashinfer-python==0.3.1, found 0.6.13",
                "attention path breaks with FlashInfer 0.6.13",
            ],
        ),
        (
            {
                "vllm.compatibility": {"attention": "breaks", "sampler": "breaks", "source": "tried"},
                "vllm.uses": {"attention": "FLASHINFER", "sampler": "FLASHINFER"},
            },
            ["attention path breaks", "sampler path breaks"],
            [],
        ),
        ({"variables": {"VLLM_ATTENTION_BACKEND": "FLASHINFER"}}, ["the vision encoder reads it too"], []),
        ({"variables": {"FLASHINFER_DISABLE_VERSION_CHECK": "1"}}, ["hides packages that do not match"], []),
        ({"caches": [{**HEALTHY["caches"][0], "writable": False}]}, ["cannot be written by this user"], []),
        ({"probe.torch_problem": "ImportError: x"}, ["PyTorch does not import: ImportError: x"], []),
        ({"probe.flashinfer_problem": "RuntimeError: y"}, ["FlashInfer 0.3.1 does not import: RuntimeError: y"], []),
        ({"mismatches": ["cubin does not match"]}, ["cubin does not match"], []),
        ({"gpu": nvidia.Survey("470.256.02")}, ["CUDA 12.8 needs 525.60.13"], []),
        (
            {"packages.flashinfer-python": "", "probe.flashinfer_problem": "no"},
            [],
            ["flashinfer-python is not installed"],
        ),
    ],
)
def test_judge(change: dict, problems: list[str], remarks: list[str]) -> None:
    found = copy.deepcopy(HEALTHY)
    for key, value in change.items():
        room, _, name = key.partition(".")
        if name:
            found[room][name] = value
        else:
            found[room] = value
    for texts, expected in zip(flashinfer_fit.judge(found), (problems, remarks)):
        assert len(texts) == len(expected), texts
        for text, part in zip(texts, expected):
            assert part in text


def test_what_is_missing_is_listed_at_once() -> None:
    compiler = {
        "nvcc_problem": "no CUDA toolkit",
        "nvcc_version": "",
        "cuda_home": "/usr/local/cuda",
        "headers": {"curand.h": "", "cublasLt.h": "/x"},
        "ninja": "",
        "cxx": "",
        "python_header": "/nonexistent/python3.11/Python.h",
    }
    missing = flashinfer_install.missing_for_compiling(compiler)
    assert [text.split(":")[0] for text in missing] == ["nvcc", "curand.h", "ninja", "C++ compiler", "Python.h"]
    assert flashinfer_install.compiler_mismatch(compiler, "12.8") == ""
    compiler.update(nvcc_version="13.0", nvcc="/usr/bin/nvcc")
    assert "nvcc 13.0 (/usr/bin/nvcc) does not match PyTorch's CUDA 12.8" in flashinfer_install.compiler_mismatch(
        compiler, "12.8"
    )


def test_where_pytorch_does_not_say_nvidia_smi_is_asked_for_the_gpu_that_cuda_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where PyTorch does not import: which attention vllm takes depends on the GPU that it is started on."""
    kinds = (("L4", "GPU-1", "8.9"), ("T4", "GPU-2", "7.5"))
    gpus = [nvidia.Gpu(number, name, uuid, kind, 1, 0, False) for number, (name, uuid, kind) in enumerate(kinds)]
    monkeypatch.setattr(nvidia, "survey", lambda timeout: nvidia.Survey(gpus=gpus))
    for name, version in (("vllm", "0.11.0"), ("flashinfer_python", "0.3.1")):
        add_distribution(tmp_path, name, version, {})
    found = flashinfer_fit.look(staging.Stage(str(tmp_path)), {"CUDA_VISIBLE_DEVICES": "GPU-2"}, 5, str(tmp_path))
    assert found["vllm"]["uses"]["attention"] == "FLEX_ATTENTION"


def test_a_runtime_with_two_paths_is_one(tmp_path: Path) -> None:
    """As below `lib64`, a link to `lib` in many trees."""
    library = tmp_path / "lib/libcudart.so.12.8.90"
    library.parent.mkdir()
    library.touch()
    (tmp_path / "lib64").symlink_to(library.parent)
    loaded = [str(library), str(tmp_path / "lib64" / library.name), str(tmp_path / "lib64/libcublas.so.12")]
    assert flashinfer_install.runtimes(loaded) == [str(library)]
    assert flashinfer_install.runtimes([]) == []


def test_what_is_returned_is_what_is_documented(tmp_path: Path) -> None:
    told = yaml.safe_load(flashinfer_info.RETURN)
    module = tmp_path / "site/flashinfer/data/aot/norm/norm.so"
    module.parent.mkdir(parents=True)
    module.touch()
    compiler = flashinfer_install.compiler(("", ""), "", "", {}, "12.8", 5)
    modules = flashinfer_install.compiled_modules("/nonexistent", str(tmp_path / "site/flashinfer"), {})
    gpu = nvidia.Survey("570.124.06", [nvidia.Gpu(0, "NVIDIA L4", "GPU-1", "8.9", 23034, 1, False)]).as_dict()
    assert told["compiler"]["contains"].keys() == compiler.keys()
    assert told["compiled_modules"]["contains"].keys() == modules[0].keys()
    assert told["caches"]["contains"].keys() == flashinfer_install.caches({})[0].keys()
    assert told["gpu"]["contains"].keys() == gpu.keys()
    assert told["gpu"]["contains"]["gpus"]["contains"].keys() == gpu["gpus"][0].keys()
