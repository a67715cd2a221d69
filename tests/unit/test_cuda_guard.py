# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import cuda_guard


@pytest.mark.parametrize(
    ("name", "version", "major"),
    [
        # Names and versions as FlashInfer's and torch's requirements resolve to them.
        ("nvidia-cublas-cu12", "12.8.4.1", 12),
        ("nvidia-cutlass-dsl-libs-cu12", "4.8.1", 12),
        ("nvidia-cutlass-dsl-libs-cu13", "4.8.1", 13),
        ("cupy-cuda12x", "14.2.0", 12),
        ("cuda-bindings", "13.5.0", 13),
        ("cuda-bindings", "12.9.10", 12),
        ("nvidia-cuda-nvcc", "13.4.92", 13),
        ("nvidia-nvvm", "13.4.92", 13),
        ("nvidia-cublas", "13.1.0", 13),
        # All that cuda-toolkit[all] brings.
        *((f"nvidia-{name}", "13.0.1", 13) for name in ("npp", "nvfatbin", "nvjpeg", "nvml-dev", "nvptxcompiler")),
        ("nvidia-cufft", "12.0.0", 13),  # its version number is its own
        ("nvidia-ml-py", "13.615.71", None),  # talks to the driver, links no CUDA library
        ("nvidia-cudnn-frontend", "1.28.0", None),
        ("cuda-pathfinder", "1.9.0", None),
        ("torch", "2.8.0", None),
    ],
)
def test_major(name, version, major):
    assert cuda_guard.major(name, version) == major


@pytest.mark.parametrize(
    ("name", "constraint"),
    [("cuda-bindings", "cuda-bindings>=12,<13"), ("nvidia-cutlass-dsl-libs-cu13", "nvidia-cutlass-dsl-libs-cu13<0")],
)
def test_exclusion(name, constraint):
    assert cuda_guard.exclusion(name, 12) == constraint
