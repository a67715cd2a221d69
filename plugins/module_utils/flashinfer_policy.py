# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which FlashInfer an environment should have, and which companions go with it.

The installed vllm decides: its attention path calls FlashInfer with a fixed number of arguments, so a newer FlashInfer
imports well and fails at the first request. vllm says what it was built against in its extra `flashinfer`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.distributions import Distribution

PACKAGE = "flashinfer-python"

# Precompiled kernels. A companion of another version is ignored, or an error at import.
COMPANIONS = ("flashinfer-cubin", "flashinfer-jit-cache")

# How evidence tells the index of flashinfer-jit-cache, and that it needs none of its own.
INDEX_OF_JIT_CACHE = "flashinfer-jit-cache from"
PACKAGE_INDEX = "the package index"

# Where the role writes by which method FlashInfer came, in the environment's own tree.
RECORD = "etc/ocrfleet/flashinfer.json"

# `flashinfer-python==0.3.1; extra == "flashinfer"`
_DECLARED = re.compile(r"flashinfer-python\s*\(?==\s*([^\s;,)]+).*extra\s*==\s*['\"]flashinfer['\"]")


@dataclass(frozen=True)
class Selection:
    """The version, and in one sentence where it comes from."""

    version: str
    reason: str

    @property
    def requirement(self) -> str:
        return f"{PACKAGE}=={self.version}"

    @property
    def companions(self) -> list[str]:
        """Requirements of the companions, at exactly the matching version.

        A build for one CUDA version carries a local label (`0.6.13+cu128`), which `==` without a label accepts (PEP
        440).
        """
        return [f"{name}=={self.version}" for name in COMPANIONS]


def declared_by_vllm(installed: Mapping[str, Distribution]) -> str | None:
    """The FlashInfer version in the `flashinfer` extra of the installed vllm, or None."""
    vllm = installed.get("vllm")
    for requirement in vllm.requires if vllm else ():
        match = _DECLARED.match(requirement)
        if match:
            return match[1]
    return None


def select(wanted: str, installed: dict[str, Distribution], default: str) -> Selection:
    """`wanted` is a version or `auto`; `default` is taken when no installed vllm declares one."""
    declared = declared_by_vllm(installed)
    if wanted != "auto":
        warning = (
            f", though the installed vllm {installed['vllm'].version} was built against {declared}" if declared else ""
        )
        return Selection(wanted, "fi_version names it" + (warning if wanted != declared else ""))
    if declared:
        return Selection(
            declared, f"the installed vllm {installed['vllm'].version} declares it in its flashinfer extra"
        )
    why = "no vllm is installed" if "vllm" not in installed else "the installed vllm declares none"
    return Selection(default, f"{why}, so flashinfer_default_version decides")


def _written(tree: str) -> dict:
    try:
        with open(os.path.join(tree, RECORD), encoding="utf-8") as file:
            written = json.load(file)
    except (OSError, ValueError):
        return {}
    return written if isinstance(written, dict) else {}


def installed_by(tree: str, version: str) -> dict:
    """What the role wrote about the FlashInfer of this version; {} where it wrote nothing, or about another one."""
    written = _written(tree)
    return {key: written[key] for key in written if key != "packages"} if written.get("version") == version else {}


def method(tree: str) -> str:
    """The method that FlashInfer came by, as the role wrote it; "" where it wrote nothing."""
    return str(_written(tree).get("method", ""))


def brought(tree: str) -> dict[str, str | None]:
    """The packages that came or moved with FlashInfer, by version (None for one that went), as the role wrote them."""
    packages = _written(tree).get("packages")
    return packages if isinstance(packages, dict) else {}
