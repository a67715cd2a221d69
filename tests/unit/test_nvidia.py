# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nvidia-smi says, in its own words, and what the operator is told."""

from __future__ import annotations

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands, nvidia

H200 = "0, NVIDIA H200, GPU-5d1a2c77-0e0e-4b43-9a3a-9f0a6f8f2d11, 9.0, 580.159.03, 143771, 0, Disabled\n"
L4 = "0, NVIDIA L4, GPU-b1c5a5a0-2c6f-0d5a-7f0e-2a8f6f1f3c44, 8.9, 550.54.15, 23034, 1, [N/A]\n"
T4 = "0, Tesla T4, GPU-0f6f3a51-7f0a-1f5e-8b0b-8d0cfb6f7f01, 7.5, 535.183.01, 15360, 2, [N/A]\n"
V100 = "0, Tesla V100-SXM2-16GB, GPU-7a3e9d7e-1c4c-5f47-a1f6-1d2b7b7b0001, 7.0, 535.183.01, 16384, 0, [N/A]\n"
A100_MIG = (
    "0, NVIDIA A100-SXM4-80GB, GPU-4d6a5a49-7f9c-9f0a-3b8d-6c2f5a4f0001, 8.0, 550.90.07, 81920, 87, Enabled\n"
    "1, NVIDIA A100-SXM4-80GB, GPU-4d6a5a49-7f9c-9f0a-3b8d-6c2f5a4f0002, 8.0, 550.90.07, 81920, 4, Disabled\n"
)
MIG_LIST = (
    "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-4d6a5a49-7f9c-9f0a-3b8d-6c2f5a4f0001)\n"
    "  MIG 3g.40gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)\n"
    "  MIG 3g.40gb     Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)\n"
)
OLD_DRIVER = "0, NVIDIA A10, GPU-c0ffee00-0000-4000-8000-000000000001, 8.6, 470.256.02, 23028, 0, [N/A]\n"

NOT_LOADED = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n\n"
)
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 535.183\n"
LOST = "Unable to determine the device handle for GPU0000:3B:00.0: Unknown Error\n"
TOO_OLD = 'Field "compute_cap" is not a valid field to query.\n\n'

TORCH_CU128 = ["sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


def fake(answers: dict[str, tuple[int, str]]):  # type: ignore[no-untyped-def]
    """nvidia-smi, by the first argument that is a key; -1 as exit code stands for a hang."""

    def run(argv: list[str], *, timeout: float) -> commands.Result:
        for key, (rc, stdout) in answers.items():
            if any(key in argument for argument in argv):
                return commands.Result(argv, -9 if rc == -1 else rc, stdout, "", timeout, timed_out=rc == -1)
        return commands.Result(argv, 0, "", "", 0.1)

    return run


def survey(answers: dict[str, tuple[int, str]]) -> nvidia.Survey:
    return nvidia.survey(fake(answers), timeout=5)


@pytest.mark.parametrize(
    ("rc", "stdout", "says"),
    [
        (-1, "", "did not end within 5 s: a driver or GPU hangs"),
        (9, NOT_LOADED, "the NVIDIA driver is not loaded"),
        (18, MISMATCH, "of different versions, as after an update: reboot"),
        (15, LOST, "fell off the bus"),
        (255, "something new\n", "ended with exit code 255\nsomething new"),
        (0, "garbage\n", "unknown form: garbage"),
        (2, TOO_OLD, "too old to tell"),
    ],
)
def test_no_answer(rc: int, stdout: str, says: str) -> None:
    found = survey({"index": (rc, stdout)})
    assert says in found.problem
    assert not found.gpus
    assert any(says in problem for problem in nvidia.preflight(found, "12.8")[0])


@pytest.mark.parametrize(
    ("rc", "stdout", "says"),
    [(127, "", "not on PATH"), (6, "No devices were found\n", "the driver is loaded and finds no GPU")],
)
def test_no_gpu_is_no_problem(rc: int, stdout: str, says: str) -> None:
    found = survey({"index": (rc, stdout)})
    assert says in found.absent
    assert nvidia.preflight(found, "12.8") == ([], [])


@pytest.mark.parametrize(
    ("answers", "problems", "remarks"),
    [
        ({"index": (0, H200)}, [], []),
        ({"index": (0, L4)}, [], []),
        ({"index": (0, T4)}, [], []),
        ({"index": (0, V100)}, ["FlashInfer needs compute capability 7.5, found 7.0"], []),
        ({"index": (0, OLD_DRIVER)}, ["CUDA 12.8 needs 525.60.13 or newer, found 470.256.02"], []),
        ({"index": (0, A100_MIG), "-L": (0, MIG_LIST)}, [], ["GPU 0 (NVIDIA A100-SXM4-80GB): MIG is on", "2 GPUs"]),
        (
            {"index": (0, A100_MIG)},
            ["MIG: expected an instance, since MIG is on, found none; make one"],
            ["MIG is on", "2 GPUs"],
        ),
        (
            {"index": (0, A100_MIG), "-L": (-1, "")},
            ["MIG: expected its instances from nvidia-smi -L, found: nvidia-smi did not end within 5 s"],
            ["MIG is on", "2 GPUs"],
        ),
        (
            {"index": (0, A100_MIG), "-L": (15, LOST)},
            ["MIG: expected its instances from nvidia-smi -L, found: a GPU fell off the bus"],
            ["MIG is on", "2 GPUs"],
        ),
        (
            {"index": (0, H200), "compute-apps": (0, f"{H200.split(', ')[2]}, 4711, /opt/olmocr/bin/python3.11\n")},
            [],
            ["in use by /opt/olmocr/bin/python3.11 (4711), 0 of 143771 MiB taken"],
        ),
        (
            {"index": (0, H200.replace("9.0", "5.2").replace("143771", "12288"))},
            ["5.2 is not among those of the installed PyTorch", "FlashInfer needs"],
            ["OlmOCR wants 15360 MiB, found 12288 MiB"],
        ),
    ],
)
def test_preflight(answers: dict, problems: list[str], remarks: list[str]) -> None:
    found = nvidia.preflight(survey(answers), "12.8", TORCH_CU128)
    for texts, expected in zip(found, (problems, remarks)):
        assert len(texts) == len(expected), texts
        for text, part in zip(texts, expected):
            assert part in text


def test_a_survey_is_plain_data() -> None:
    assert survey({"index": (0, H200)}).as_dict()["gpus"] == [
        {
            "index": 0,
            "name": "NVIDIA H200",
            "uuid": "GPU-5d1a2c77-0e0e-4b43-9a3a-9f0a6f8f2d11",
            "capability": "9.0",
            "memory_mib": 143771,
            "memory_used_mib": 0,
            "mig": False,
            "processes": [],
        }
    ]


@pytest.mark.parametrize(
    ("capability", "architectures", "expected"),
    [
        ("8.9", ["sm_80"], True),
        ("8.0", ["sm_86"], False),
        ("9.0", ["sm_80"], False),
        ("9.0", ["compute_80"], True),
        ("9.0", ["sm_90a"], True),
        ("12.1", ["sm_120"], True),
        ("10.3", ["sm_100a"], False),
        ("6.1", TORCH_CU128, False),
        ("9.0", [], False),
    ],
)
def test_runs_on(capability: str, architectures: list[str], expected: bool) -> None:
    assert nvidia.runs_on(capability, architectures) is expected


@pytest.mark.parametrize(
    ("driver", "cuda", "problem"),
    [
        ("525.60.13", "12.8", False),
        ("525.60.11", "12.8", True),
        ("570.124.06", "13.0", True),
        ("580.159.03", "13.0", False),
        ("", "12.8", False),
    ],
)
def test_driver_problem(driver: str, cuda: str, problem: bool) -> None:
    assert bool(nvidia.driver_problem(driver, cuda)) is problem
