# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What vllm's log says about the attention and the sampler that it used.

The lines are those of vllm 0.11.0: `platforms/cuda.py`, `v1/sample/ops/topk_topp_sampler.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# By the names of VLLM_ATTENTION_BACKEND, and of the samplers, how the log calls them.
_NAMES = {
    "FLASH_ATTN": "Flash Attention",
    "FLASHINFER": "FlashInfer",
    "FLEX_ATTENTION": "FlexAttention",
    "PYTORCH": "PyTorch",
    "TREE_ATTN": "Tree Attention",
    "TRITON_ATTN": "Triton",
    "XFORMERS": "XFormers",
}
_ATTENTION = re.compile(r"Using (\S.*?) backend\b.*? on V1 engine[^\n]*")
_FLASHINFER_SAMPLER = re.compile(r"Using FlashInfer for top-p & top-k sampling\.")
_OTHER_SAMPLER = re.compile(
    r"FlashInfer (?:is (?:available, but it is not enabled|not available)|version >= \S+ required)\."
)


def proof(log: str) -> list[str]:
    """The lines that say what was used, each once; a figure about FlashInfer is worth something only with its line."""
    patterns = (_ATTENTION, _FLASHINFER_SAMPLER, _OTHER_SAMPLER)
    return sorted({found[0].strip() for pattern in patterns for found in pattern.finditer(log)})


def used(log: str) -> dict[str, str]:
    """The attention as vllm names it, and the sampler (FlashInfer or PyTorch); "" where the log does not say."""
    attention = sorted({found[1] for found in _ATTENTION.finditer(log)})
    sampler = [
        name
        for name, pattern in (("FlashInfer", _FLASHINFER_SAMPLER), ("PyTorch", _OTHER_SAMPLER))
        if pattern.search(log)
    ]
    return {"attention": ", ".join(attention), "sampler": ", ".join(sampler)}


def contradiction(log: str, sampler: str | None, uses: Mapping[str, str] | None = None) -> str:
    """Where the log says something else than the switch VLLM_USE_FLASHINFER_SAMPLER (None: not set), or "".

    A log that does not say is no contradiction: another release of vllm words it in another way. With `uses`, what
    `flashinfer_install.vllm_use` foretells of a release whose lines these are, it proves nothing and is told, and so is
    another attention, or sampler where the switch is not set.
    """
    found, foretold = used(log), uses or {}
    silent = [what for what in ("sampler", "attention") if uses and not found[what]]
    if silent:
        return (
            f"expected lines in vllm's log that say which {' and which '.join(silent)} it used, found none, so nothing "
            "proves it; VLLM_LOGGING_LEVEL above INFO, or VLLM_CONFIGURE_LOGGING=0, keeps them back: leave it unset"
        )
    wrong = []
    wanted = {"1": "FlashInfer", "0": "PyTorch"}.get(sampler or "", _NAMES.get(foretold.get("sampler", ""), ""))
    if wanted and found["sampler"] not in ("", wanted):
        said = " ".join(line for line in proof(log) if not _ATTENTION.match(line))
        wrong.append(f"expected vllm to sample with {wanted}, as it was started; its log says: {said}")
    wanted = _NAMES.get(foretold.get("attention", ""), "")
    if wanted and found["attention"] != wanted:
        said = " ".join(line for line in proof(log) if _ATTENTION.match(line))
        wrong.append(f"expected vllm to attend with {wanted}, as its start and this GPU foretell; its log says: {said}")
    return "; ".join(wrong)


def doubt(baseline: str, candidate: str) -> str:
    """Why figures of two vllm with these logs are not about FlashInfer, or may not be; "" where the second names it."""
    without, found = used(baseline), used(candidate)
    if any("FlashInfer" in value for value in found.values()):
        return ""
    if "" in found.values():
        return "vllm's log does not name all that it used: whether FlashInfer had a part in the figures is not known"
    who = "both sides" if found == without else "the candidate"
    what = f"{found['attention']} and {found['sampler']}'s sampler"
    return f"{who} used {what}: the figures say nothing of FlashInfer"
