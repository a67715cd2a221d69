# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was seen of a machine, as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# PyTorch's aarch64 wheel of the package index is an eighth of the x86_64 one's size: it is built without CUDA.
AARCH64 = (
    "aarch64: nothing here was tried on it. No lock is shipped for it, and the package index's PyTorch has no CUDA "
    "there; name PyTorch's own index by pytorch_index_url"
)


def rows(seen: Mapping[str, Any], packages_from: str) -> list[tuple[str, str]]:
    """Label and text of each line; every line is there, also where there is nothing to say."""
    environment, driver = seen["environment"], seen["driver"]
    gpus = seen["gpus"]["devices"] or [seen["gpus"]["problem"] or seen["gpus"]["absent"] or "none"]
    hindrances = [name for name, on in (("nouveau", driver["nouveau"]), ("Secure Boot", driver["secure_boot"])) if on]
    toolkits = [f"{kit['version'] or 'no nvcc that answers'} in {kit['home']}" for kit in seen["toolkits"]]
    return [
        ("distribution", f"{seen['distribution']}, {seen['architecture']}"),
        ("kernel", seen["kernel"]),
        ("driver", ", ".join([driver["version"] or "none", *hindrances])),
        ("GPUs", "; ".join(gpus)),
        ("disk", f"{seen['disk_free_gb']:.0f} GB free"),
        ("memory", f"{seen['memory_gb']:.0f} GB"),
        (
            "Python",
            f"{seen['python_version'] or 'none that fits'}" + (f" ({seen['python']})" if seen["python"] else ""),
        ),
        ("conda", ", ".join(seen["conda"]) or "none"),
        ("CUDA toolkits", "; ".join(toolkits) or "none"),
        (
            "environment",
            f"{environment['path']}, {environment['kind'] or ''} {environment['state']}".replace(",  ", ", "),
        ),
        ("PyTorch", environment.get("torch") or "none"),
        ("packages from", packages_from),
    ]


def lines(seen: Mapping[str, Any], packages_from: str) -> list[str]:
    """The table's lines, with the texts below each other."""
    table = rows(seen, packages_from)
    width = max(len(label) for label, text in table)
    return [f"{label:<{width}}  {text}" for label, text in table]
