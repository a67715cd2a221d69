# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is there an NVIDIA GPU in this host, whatever PyTorch and the driver say about it?

A check that cannot run because there is no GPU is not the same as one that fails because the driver is broken.
What nvidia-smi says is `nvidia`'s; here it is put beside what the kernel shows.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping, Sequence

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands, nvidia

_NVIDIA = "0x10de"
_DISPLAY = "0x03"  # the PCI class of display and 3D controllers


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _in_container(root: str) -> bool:
    return any(os.path.exists(os.path.join(root, mark)) for mark in ("run/.containerenv", ".dockerenv"))


def hardware(root: str = "/") -> list[str]:
    """The GPUs that the kernel shows, as device files and on the PCI bus.

    A GPU without a driver has neither a device file nor an answer from nvidia-smi. A container sees its host's bus but
    has only the devices it was given, so the bus says nothing there.
    """
    found = sorted(glob.glob(os.path.join(root, "dev/nvidia[0-9]*")))
    if not _in_container(root):
        for device in sorted(glob.glob(os.path.join(root, "sys/bus/pci/devices/*"))):
            if _read(os.path.join(device, "vendor")) == _NVIDIA and _read(os.path.join(device, "class")).startswith(
                _DISPLAY
            ):
                found.append(f"PCI device {os.path.basename(device)}")
    return found


def evidence(run: Callable[..., commands.Result] = commands.run, root: str = "/") -> list[str]:
    """What shows that this host has an NVIDIA GPU; an empty list means that nothing does."""
    survey = nvidia.survey(run, timeout=30)
    return [f"GPU {gpu.index}: {gpu.name}" for gpu in survey.gpus] + hardware(root)


def first_visible(gpus: Sequence[nvidia.Gpu], visible: str | None) -> nvidia.Gpu | None:
    """The GPU that CUDA sees first, given CUDA_VISIBLE_DEVICES; None where it sees none, or that cannot be told."""
    if visible is None:
        return gpus[0] if gpus else None
    wanted = visible.split(",")[0].strip()
    return next(
        (gpu for gpu in gpus if str(gpu.index) == wanted or (wanted[:4] == "GPU-" and gpu.uuid.startswith(wanted))),
        None,
    )


def capability(gpus: Sequence[nvidia.Gpu], variables: Mapping[str, str]) -> str:
    """The compute capability of the GPU that CUDA sees first with these variables; "" where that cannot be told.

    CUDA counts the fastest GPU first and nvidia-smi by the bus, unless CUDA_DEVICE_ORDER says so too ("CUDA Environment
    Variables" of the CUDA C++ Programming Guide). A UUID, and GPUs of one kind, are the same in any order.
    """
    visible = variables.get("CUDA_VISIBLE_DEVICES")
    kinds = {gpu.capability for gpu in gpus}
    if len(kinds) == 1 and (visible or "").startswith("MIG-"):  # an instance of one of them
        return kinds.pop()
    gpu = first_visible(gpus, visible)
    counted_alike = variables.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len(kinds) == 1
    return gpu.capability if gpu and (counted_alike or (visible or "").startswith("GPU-")) else ""


def free_memory(
    visible: str | None = None, run: Callable[..., commands.Result] = commands.run
) -> tuple[int, int] | None:
    """Of the GPU that vllm would take: the MiB of memory that are free, and those that it has.

    `visible` is CUDA_VISIBLE_DEVICES where it is set. None when nvidia-smi does not say.
    """
    gpu = first_visible(nvidia.survey(run, timeout=30).gpus, visible)
    if not gpu or not gpu.memory_mib:
        return None
    return gpu.memory_mib - gpu.memory_used_mib, gpu.memory_mib
