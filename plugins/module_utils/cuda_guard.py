# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which CUDA major version a package belongs to, and the constraint that keeps another one out.

FlashInfer's requirements are open at the top: resolved freely they bring CUDA 13 libraries into a CUDA 12.8
environment,
and a check of torch alone does not see that.
"""

from __future__ import annotations

import re

# `nvidia-cublas-cu12`, `nvidia-cutlass-dsl-libs-cu13`, `cupy-cuda12x`: the name carries the major version.
_SUFFIX = re.compile(r"-cu(?:da)?(\d\d)x?$")

# Packages without suffix whose own version is that of CUDA.
_VERSIONED = re.compile(
    r"cuda-(bindings|python|toolkit)|nvidia-cuda-[a-z-]+"
    r"|nvidia-(npp|nvfatbin|nvjitlink|nvjpeg|nvml-dev|nvptxcompiler|nvtx|nvvm)"
)

# Libraries with version numbers of their own. NVIDIA's wheels dropped the suffix with CUDA 13, so the bare name says
# 13.
_BARE = re.compile(r"nvidia-(cublas|cufft|cufile|curand|cusolver|cusparse)")


def major(name: str, version: str) -> int | None:
    """The CUDA major version that a distribution (canonical name, version) is for; None when for no certain one."""
    suffix = _SUFFIX.search(name)
    if suffix:
        return int(suffix[1])
    if _VERSIONED.fullmatch(name):
        number = re.match(r"\d+", version)
        return int(number[0]) if number else None
    return 13 if _BARE.fullmatch(name) else None


def exclusion(name: str, wanted: int) -> str:
    """A constraint that lets the resolver take only what fits CUDA `wanted` of package `name`."""
    if _VERSIONED.fullmatch(name):
        return f"{name}>={wanted},<{wanted + 1}"
    return f"{name}<0"  # no version of it can fit: the resolver must find a way without it
