# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel says about the NVIDIA driver: loaded or not, and what keeps it from loading."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass

SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@dataclass(frozen=True)
class KernelState:
    """`secure_boot` is None where the host says nothing about it, as without UEFI and in a container."""

    loaded: bool
    nouveau: bool
    secure_boot: bool | None

    def as_dict(self) -> dict:
        return asdict(self)


def kernel_state(root: str = "/") -> KernelState:
    try:
        with open(os.path.join(root, SECURE_BOOT), "rb") as file:
            # Four bytes of attributes, then the value: UEFI specification, "Globally Defined Variables".
            secure_boot: bool | None = file.read()[4:5] == b"\x01"
    except OSError:
        secure_boot = None
    return KernelState(
        loaded=os.path.exists(os.path.join(root, "proc/driver/nvidia/version")),
        nouveau=os.path.isdir(os.path.join(root, "sys/module/nouveau")),
        secure_boot=secure_boot,
    )


def hindrances(state: KernelState) -> list[str]:
    """Why the driver's module may not be loaded, each with what to do."""
    if state.loaded:
        return []
    found = []
    if state.nouveau:
        found.append(
            "nouveau: the kernel's own driver holds the GPU; blacklist it (NVIDIA's packages do), rebuild the "
            "initramfs and reboot"
        )
    if state.secure_boot:
        found.append(
            "Secure Boot: it is on, and the kernel loads only signed modules; enrol the key that the driver was signed "
            "with (mokutil --import, then reboot), use the distribution's signed driver, or switch Secure Boot off"
        )
    return found
