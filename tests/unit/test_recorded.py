# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read from the real output of the programs; see fixtures/recorded/README.md for the commands."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    commands,
    flashinfer_install,
    gpu_kernels,
    gpu_presence,
    kernel_pack,
    nvidia,
    show_config,
    vllm_log,
)

RECORDED = Path(__file__).parent / "fixtures" / "recorded"


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "flashinfer", "torch", "cuda", "nvcc"),
    [
        ("0.3.1", None, "2.8.0+cu128", "13.0", None),
        ("0.5.3", "0.5.3", "2.8.0+cu128", "13.0", "Yes"),
        ("0.6.13", "0.6.13", "2.8.0+cu128", "13.0", "Yes"),
        ("0.7.2.post1", "0.7.2.post1", "2.8.0+cu128", "13.0", "Yes"),
        ("0.6.13-gpu", "0.6.13", "2.11.0+cu130", "13.0", "Yes"),
        # Without an nvcc they tell PyTorch's CUDA version as if it were the compiler's.
        ("0.5.3-no-nvcc", "0.5.3", "2.8.0+cu128", "12.8", "No"),
        ("0.6.13-no-toolkit", "0.6.13", "2.8.0+cu128", "12.8", "No"),
        ("0.3.1-no-nvcc", None, None, None, None),
        ("0.3.1-no-toolkit", None, None, None, None),
    ],
)
def test_show_config(name: str, flashinfer: str | None, torch: str | None, cuda: str | None, nvcc: str | None) -> None:
    values = show_config.parse(recorded(f"show-config-{name}"))
    keys = ("flashinfer version", "torch version", "cuda_version", "nvcc found")
    assert tuple(values.get(key) for key in keys) == (flashinfer, torch, cuda, nvcc)
    assert not any(key.startswith("trtllm") for key in values), "what follows the versions is not read"


@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("0.3.1-no-nvcc", True),
        ("0.3.1-no-toolkit", True),
        ("0.3.1", False),
        ("0.5.3", False),
        ("0.6.13", False),
        ("0.7.2.post1", False),
    ],
)
def test_a_show_config_that_ends_for_want_of_nvcc(name: str, lacking: bool) -> None:
    """The others end because NVIDIA's file server is out of reach, after they have told their versions."""
    assert show_config.lacks_nvcc(recorded(f"show-config-{name}.stderr")) is lacking


def test_nvcc() -> None:
    said = commands.Result(["nvcc"], 0, recorded("nvcc-13.0"), "", 0.1)
    assert flashinfer_install.nvcc("/usr/local/cuda", lambda argv, timeout: said, 30) == {
        "path": "/usr/local/cuda/bin/nvcc",
        "version": "13.0",
        "problem": "",
    }


@pytest.mark.parametrize("name", ["no-memory", "killed"])
def test_a_compiler_that_found_no_memory_on_the_host(name: str) -> None:
    """It is not the GPU's memory that is out, whatever the words."""
    said = recorded(f"gcc-12-{name}")
    for message in (said, f"Ninja build failed. Ninja output:\n{said}"):
        assert gpu_kernels.reason_of(RuntimeError(message)) == "compile_error"
    stderr = f"RuntimeError: Ninja build failed. Ninja output:\n{said}ninja: build stopped: subcommand failed.\n"
    assert said.splitlines()[0] in kernel_pack.compile_complaint(commands.Result(["python"], 1, "", stderr, 9.0))


def smi(query: str, processes: str = "", rc: int = 0):  # type: ignore[no-untyped-def]
    """nvidia-smi that answers with recorded output."""

    def run(argv: list[str], *, timeout: float) -> commands.Result:
        name = processes if argv == nvidia.PROCESSES else query
        return commands.Result(argv, rc, recorded(f"nvidia-smi-{name}") if name else "", "", 0.1)

    return run


TORCH = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


@pytest.mark.parametrize(
    ("query", "processes", "gpus", "remarks"),
    [
        ("query", "", 1, []),
        (
            "query-in-use",
            "processes-in-use",
            1,
            ["in use by python3 (483), 21007 of 81559 MiB taken; vllm wants 90 % for itself"],
        ),
        ("query-in-use", "", 1, ["in use by processes that cannot be seen from here"]),
        ("query-two", "", 2, ["2 GPUs: the first visible one is used; choose by CUDA_VISIBLE_DEVICES"]),
    ],
)
def test_nvidia_smi(query: str, processes: str, gpus: int, remarks: list[str]) -> None:
    found = nvidia.survey(smi(query, processes))
    assert [(gpu.name, gpu.capability, gpu.memory_mib, gpu.mig) for gpu in found.gpus] == [
        ("NVIDIA H100 80GB HBM3", "9.0", 81559, False)
    ] * gpus
    assert found.driver == "580.159.04"
    problems, told = nvidia.preflight(found, "13.0", TORCH)
    assert problems == []
    assert len(told) == len(remarks)
    assert all(part in text for part, text in zip(remarks, told))


@pytest.mark.parametrize(
    ("name", "rc", "absent", "problem"),
    [
        ("no-device-file", 6, "the driver is loaded and finds no GPU", ""),
        ("no-control-file", 17, "", "the driver's device files are not what they should be"),
        ("unknown-field", 2, "", "the driver is too old to tell a GPU's compute capability"),
    ],
)
def test_nvidia_smi_that_gives_no_answer(name: str, rc: int, absent: str, problem: str) -> None:
    found = nvidia.survey(smi(name, rc=rc))
    assert (bool(found.absent), bool(found.problem)) == (bool(absent), bool(problem))
    assert absent in found.absent
    assert problem in found.problem


def mixed() -> list[nvidia.Gpu]:
    """The recorded host of two, its second GPU another one: no such host was to be had."""
    first, second = nvidia.survey(smi("query-two")).gpus
    return [first, dataclasses.replace(second, name="NVIDIA L4", capability="8.9")]


FIRST, SECOND = "GPU-65d3ac1d-7eec-42ee-bce4-7a3c8fa5045b", "GPU-2d4ff39e-029c-613c-2f74-422192ee293a"
BY_BUS = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@pytest.mark.parametrize(
    ("variables", "capability"),
    [
        (BY_BUS, "9.0"),
        ({**BY_BUS, "CUDA_VISIBLE_DEVICES": "0"}, "9.0"),
        ({**BY_BUS, "CUDA_VISIBLE_DEVICES": "1"}, "8.9"),
        ({**BY_BUS, "CUDA_VISIBLE_DEVICES": "1,0"}, "8.9"),
        ({"CUDA_VISIBLE_DEVICES": FIRST}, "9.0"),
        ({"CUDA_VISIBLE_DEVICES": SECOND}, "8.9"),
        ({"CUDA_VISIBLE_DEVICES": SECOND[:8]}, "8.9"),
        # None that CUDA would see, or none that nvidia-smi's list of GPUs names.
        ({"CUDA_VISIBLE_DEVICES": ""}, ""),
        ({**BY_BUS, "CUDA_VISIBLE_DEVICES": "2"}, ""),
        ({"CUDA_VISIBLE_DEVICES": "MIG-2d4ff39e-029c-613c-2f74-422192ee293a"}, ""),
        # CUDA counts the fastest first, and nvidia-smi does not say which that is.
        ({}, ""),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ""),
        ({"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, ""),
    ],
)
def test_the_capability_is_that_of_the_gpu_that_cuda_sees_first(variables: dict[str, str], capability: str) -> None:
    assert gpu_presence.capability(mixed(), variables) == capability
    alike = nvidia.survey(smi("query-two")).gpus
    none = variables.get("CUDA_VISIBLE_DEVICES") in ("", "2")
    assert gpu_presence.capability(alike, variables) == ("" if none else "9.0"), "GPUs of one kind"
    assert gpu_presence.capability([], variables) == ""


def test_gpus_of_different_kinds_are_to_be_told_apart_for_cuda() -> None:
    found = dataclasses.replace(nvidia.survey(smi("query-two")), gpus=mixed())
    _problems, remarks = nvidia.preflight(found, "13.0", TORCH)
    assert len(remarks) == 1
    assert "they are of different kinds (8.9, 9.0), of which CUDA counts the fastest first" in remarks[0]


SAMPLER_ON = "Using FlashInfer for top-p & top-k sampling."
BLACKWELL = "Using FlashInfer backend with HND KV cache layout on V1 engine by default for Blackwell (SM 10.0) GPUs."
FLASH_ATTENTION = "Using Flash Attention backend on V1 engine."


@pytest.mark.parametrize(
    ("name", "attention", "sampler", "proof"),
    [
        ("sampler-on", "Flash Attention", "FlashInfer", [FLASH_ATTENTION, SAMPLER_ON]),
        (
            "sampler-off",
            "Flash Attention",
            "PyTorch",
            ["FlashInfer is available, but it is not enabled.", FLASH_ATTENTION],
        ),
        ("no-flashinfer", "Flash Attention", "PyTorch", ["FlashInfer is not available.", FLASH_ATTENTION]),
        ("turing", "FlexAttention", "FlashInfer", [SAMPLER_ON, "Using FlexAttention backend on V1 engine."]),
        (
            "blackwell",
            "FlashInfer",
            "FlashInfer",
            [BLACKWELL, SAMPLER_ON],
        ),
    ],
)
def test_what_vllms_log_proves(name: str, attention: str, sampler: str, proof: list[str]) -> None:
    log = recorded(f"vllm-0.11.0-{name}")
    assert vllm_log.used(log) == {"attention": attention, "sampler": sampler}
    assert vllm_log.proof(log) == proof


@pytest.mark.parametrize(
    ("name", "switch", "says"),
    [
        ("sampler-on", "1", ""),
        ("sampler-off", "0", ""),
        ("no-flashinfer", "0", ""),
        ("sampler-on", None, ""),
        (
            "sampler-off",
            "1",
            "expected vllm to sample with FlashInfer, as it was started; its log says: FlashInfer is avai",
        ),
        ("no-flashinfer", "1", "its log says: FlashInfer is not available."),
        (
            "sampler-on",
            "0",
            "expected vllm to sample with PyTorch, as it was started; its log says: Using FlashInfer for",
        ),
    ],
)
def test_a_log_that_contradicts_how_vllm_was_started(name: str, switch: str | None, says: str) -> None:
    found = vllm_log.contradiction(recorded(f"vllm-0.11.0-{name}"), switch)
    assert bool(found) == bool(says)
    assert says in found


def uses(capability: str, flashinfer: str = "0.3.1", **variables: str) -> dict[str, str]:
    return flashinfer_install.vllm_use("0.11.0", flashinfer, capability, variables)


OFF = {"VLLM_USE_FLASHINFER_SAMPLER": "0"}


@pytest.mark.parametrize(
    ("name", "foretold", "says"),
    [
        ("sampler-on", uses("9.0"), ""),
        ("sampler-off", uses("9.0", **OFF), ""),
        ("turing", uses("7.5"), ""),
        ("blackwell", uses("10.0"), ""),
        ("no-flashinfer", uses("9.0", flashinfer=""), ""),
        ("sampler-on", uses(""), ""),  # no GPU was found, so any attention is as good
        ("sampler-on", uses("9.0", VLLM_ATTENTION_BACKEND="DUAL_CHUNK_FLASH_ATTN"), ""),  # one that has no line here
        ("sampler-on", uses("10.0"), "expected vllm to attend with FlashInfer, as its start and this GPU foretell"),
        ("blackwell", uses("9.0"), "expected vllm to attend with Flash Attention, .* its log says: Using FlashInfer"),
        ("sampler-on", uses("9.0", VLLM_ATTENTION_BACKEND="TRITON_ATTN"), "expected vllm to attend with Triton"),
        # The switch is not set, and still FlashInfer's sampler is what vllm takes.
        ("sampler-off", uses("9.0"), "expected vllm to sample with FlashInfer, as it was started; its log says: Fl"),
        ("turing", uses("10.0", **OFF), "to sample with PyTorch, .*; expected vllm to attend with FlashInfer"),
    ],
)
def test_a_log_that_says_something_else_than_was_foretold(name: str, foretold: dict[str, str], says: str) -> None:
    found = vllm_log.contradiction(recorded(f"vllm-0.11.0-{name}"), None, foretold)
    assert re.match(".*" + says, found) if says else found == "", found


@pytest.mark.parametrize(
    ("kept", "silent"),
    [
        ((), "which sampler and which attention it used, found none"),
        (("on V1 engine",), "which sampler it used, found none"),
        (("top-p",), "which attention it used, found none"),
    ],
)
def test_a_log_without_the_lines_proves_nothing_where_they_are_known(kept: tuple[str, ...], silent: str) -> None:
    """As with VLLM_LOGGING_LEVEL=WARNING: what OlmOCR was started with may have been used, or not."""
    lines = recorded("vllm-0.11.0-sampler-on").splitlines()
    log = "\n".join(line for line in lines if any(part in line for part in kept))
    found = vllm_log.contradiction(log, "1", uses("9.0"))
    assert f"expected lines in vllm's log that say {silent}" in found
    assert "VLLM_LOGGING_LEVEL" in found


def test_a_log_that_says_nothing_contradicts_nothing() -> None:
    assert vllm_log.used("INFO Started server process") == {"attention": "", "sampler": ""}
    assert vllm_log.contradiction("INFO Started server process", "1") == ""


@pytest.mark.parametrize(
    ("baseline", "candidate", "doubt"),
    [
        ("no-flashinfer", "sampler-on", ""),
        ("no-flashinfer", "blackwell", ""),
        (
            "no-flashinfer",
            "sampler-off",
            "both sides used Flash Attention and PyTorch's sampler: the figures say nothing of FlashInfer",
        ),
        ("", "sampler-off", "the candidate used Flash Attention and PyTorch's sampler: the figures say nothing of"),
        ("no-flashinfer", "", "whether FlashInfer had a part in the figures is not known"),
    ],
)
def test_whether_figures_are_about_flashinfer(baseline: str, candidate: str, doubt: str) -> None:
    logs = [recorded(f"vllm-0.11.0-{name}") if name else "INFO Started" for name in (baseline, candidate)]
    found = vllm_log.doubt(*logs)
    assert bool(found) == bool(doubt)
    assert doubt in found
