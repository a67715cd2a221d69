# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compile the FlashInfer modules that OlmOCR's model needs, for one GPU architecture, on a host with or without a GPU.

    python kernel_compile.py MAJOR [list|one]

This file is a program: it is run by the Python of the environment and imports nothing of this collection. The last
line of its output is JSON: the names of the modules. With `list` nothing is compiled; with `one` just the
module that vllm compiles at its start, which is loaded as well. Which architecture is compiled
for, FlashInfer reads from its environment variables; MAJOR is that architecture's major version.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

HEAD_DIM = 128  # Qwen2.5-VL-7B
NO_POSITIONS = 0  # vllm applies the rotary embedding itself


def attention_backends(major: int) -> list[str]:
    """What FlashInfer's wrappers choose from; on Hopper prefill takes `fa3`, and decode one or the other by version."""
    return ["fa2", "fa3"] if major == 9 else ["fa2"]


def specs(major: int) -> list:
    """The modules of paged decode with tensor cores, paged prefill and sampling, in bfloat16 with int32 pages.

    The arguments are those that the wrappers' `plan` passes on, the same from FlashInfer 0.3.1 to 0.7.2.
    """
    import torch
    from flashinfer import jit
    from flashinfer.sampling import gen_sampling_module

    half = torch.bfloat16
    dims = (HEAD_DIM, HEAD_DIM, NO_POSITIONS)
    flags = (False, False, False)  # sliding window, logits soft cap, fp16 reduction
    attention = [
        jit.gen_batch_prefill_module(backend, half, half, half, torch.int32, *dims, *flags)
        for backend in attention_backends(major)
    ]
    return [*attention, gen_sampling_module()]


def build(wanted: list) -> None:
    """Compile the modules side by side, in the way that their first use would: else it would compile them anew.

    From FlashInfer 0.6 on each module has a folder of its own, with the log by which ninja knows what is done. Before,
    all share one, where two ninjas at a time would spoil the log; there one ninja takes all.
    """
    if not all(hasattr(spec, "build_dir") for spec in wanted):
        from flashinfer import jit

        # A pack that is placed does not count as compiled.
        jit.build_jit_specs(wanted, verbose=False, skip_prebuilt=False)
        return
    # Each ninja starts MAX_JOBS compilers, and a compiler takes gigabytes: what is allowed is for all of them.
    allowed = int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)
    os.environ["MAX_JOBS"] = str(max(1, allowed // len(wanted)))
    with ThreadPoolExecutor(min(allowed, len(wanted))) as pool:
        for _done in pool.map(lambda spec: spec.build(verbose=False), wanted):
            pass


def main() -> int:
    major, how = int(sys.argv[1]), sys.argv[2:]
    if how == ["one"]:
        from flashinfer.sampling import gen_sampling_module

        wanted = [gen_sampling_module()]
        wanted[0].build_and_load()
    else:
        wanted = specs(major)
    if not how:
        build(wanted)
    sys.stdout.write("\n" + json.dumps(sorted(spec.name for spec in wanted)) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
