# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is there an NVIDIA GPU in this host, whatever PyTorch says about it?

A check that cannot run because there is no GPU is not the same as one that fails because the driver is broken.
"""

from __future__ import annotations

import glob
import os
from typing import Callable

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands

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


def evidence(run: Callable[..., commands.Result] = commands.run, root: str = "/") -> list[str]:
    """What shows that this host has an NVIDIA GPU; an empty list means that nothing does.

    The PCI bus is asked as well, because a GPU without a driver has neither a device file nor an answer from
    nvidia-smi. Not so in a container, which sees its host's bus but only the devices it was given.
    """
    found = sorted(glob.glob(os.path.join(root, "dev/nvidia[0-9]*")))
    listing = run(["nvidia-smi", "-L"], timeout=30)
    if listing.ok:
        # The text after the name is the card's serial, which no report needs.
        found += [line.split(" (UUID")[0] for line in listing.stdout.splitlines() if line.startswith("GPU ")]
    if not _in_container(root):
        for device in sorted(glob.glob(os.path.join(root, "sys/bus/pci/devices/*"))):
            if _read(os.path.join(device, "vendor")) == _NVIDIA and _read(os.path.join(device, "class")).startswith(
                _DISPLAY
            ):
                found.append(f"PCI device {os.path.basename(device)}")
    return found


def free_share(run: Callable[..., commands.Result] = commands.run) -> tuple[float, str] | None:
    """The share of the first GPU's memory that is free, and the same in words; None when nvidia-smi does not say."""
    answer = run(["nvidia-smi", "--query-gpu=memory.free,memory.total", "--format=csv,noheader,nounits"], timeout=30)
    try:
        free, total = (float(number) for number in answer.stdout.splitlines()[0].split(","))
        return free / total, f"{free:.0f} of {total:.0f} MiB"
    except (IndexError, ValueError, ZeroDivisionError):
        return None
