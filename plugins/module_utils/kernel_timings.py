# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time FlashInfer's kernels in turn with what vllm uses without FlashInfer, at OlmOCR's shapes.

This file is a program: it is run by the Python of the environment under test and imports nothing of this collection
but `gpu_kernels`, which lies beside it. It reads one JSON request from the file named by its argument and appends
one JSON line per comparison to the file named in the request. Inputs are made on the GPU; both sides read the same
tensors.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

# The module `gpu_kernels`, set by `main`: only beside the written program is there one of that plain name.
shapes: Any = None

DECODES = [(1, 2048), (4, 2048), (20, 2048), (128, 2048)]
PREFILLS = [2048, 8192]
SAMPLINGS = [1, 20, 128]
# bfloat16 attention by two programs: each is within 1e-2 of the reference, so twice that apart.
TOLERANCE = 2e-2


def attention_of_vllm() -> tuple[Any, str]:
    """vllm's own paged FlashAttention, and what it is called."""
    from vllm.attention.utils.fa_utils import get_flash_attn_version
    from vllm.vllm_flash_attn import flash_attn_varlen_func

    version = get_flash_attn_version()

    def run(query, cache, table, starts, lengths, tokens, out):  # type: ignore[no-untyped-def]
        return flash_attn_varlen_func(
            query,
            cache[:, 0],
            cache[:, 1],
            max_seqlen_q=tokens,
            cu_seqlens_q=starts,
            max_seqlen_k=int(table.shape[1]) * shapes.PAGE,
            seqused_k=lengths,
            causal=True,
            block_table=table,
            out=out,
            fa_version=version,
        )

    return run, f"vllm FlashAttention {version}"


def attention(torch, flashinfer, batch: int, context: int, tokens: int):  # type: ignore[no-untyped-def]
    """Two functions without arguments that compute the same attention, and the outputs they write."""
    device, pages = "cuda", batch * context // shapes.PAGE
    cache = torch.randn(pages, 2, shapes.PAGE, shapes.KV_HEADS, shapes.HEAD_DIM, device=device, dtype=torch.bfloat16)
    query = torch.randn(batch * tokens, shapes.QUERY_HEADS, shapes.HEAD_DIM, device=device, dtype=torch.bfloat16)
    order = torch.randperm(pages, device=device).to(torch.int32)
    starts = torch.arange(0, batch + 1, device=device, dtype=torch.int32)
    page_starts, last = starts * (context // shapes.PAGE), torch.full_like(starts[1:], shapes.PAGE)
    workspace = torch.zeros(shapes.WORKSPACE_BYTES, dtype=torch.uint8, device=device)
    types = {"q_data_type": torch.bfloat16, "kv_data_type": torch.bfloat16}
    heads = (shapes.QUERY_HEADS, shapes.KV_HEADS, shapes.HEAD_DIM, shapes.PAGE)
    if tokens == 1:
        wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", use_tensor_cores=True)
        wrapper.plan(page_starts, order, last, *heads, **types)
    else:
        wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD")
        wrapper.plan(starts * tokens, page_starts, order, last, *heads, causal=True, **types)
    ours, theirs = torch.empty_like(query), torch.empty_like(query)
    run_theirs, name = attention_of_vllm()
    table = order.reshape(batch, -1).contiguous()
    lengths, query_starts = torch.full_like(last, context), starts * tokens
    return (
        lambda: run_theirs(query, cache, table, query_starts, lengths, tokens, theirs),
        lambda: wrapper.run(query, cache, out=ours),
        (theirs, ours),
        name,
    )


def disagreement(outputs) -> float:  # type: ignore[no-untyped-def]
    """The worst row's relative distance between the two outputs."""
    theirs, ours = (output.float().flatten(0, -2) for output in outputs)
    return float(((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1).clamp_min(1e-20)).max())


def sampling(torch, batch: int):  # type: ignore[no-untyped-def]
    """vllm's two samplers on the same logits, top-k and top-p given, as vllm calls them."""
    from vllm.v1.sample.ops import topk_topp_sampler as vllm_sampler

    logits = torch.randn(batch, shapes.VOCABULARY, device="cuda") * 2
    top_k = torch.full((batch,), shapes.TOP_K, device="cuda", dtype=torch.int32)
    top_p = torch.full((batch,), shapes.TOP_P, device="cuda")

    def native():  # type: ignore[no-untyped-def]
        masked = vllm_sampler.apply_top_k_top_p(logits, top_k, top_p)
        return vllm_sampler.random_sample(masked.softmax(dim=-1, dtype=torch.float32), {})

    return native, lambda: vllm_sampler.flashinfer_sample(logits, top_k, top_p, {})


def graph_of(torch, run):  # type: ignore[no-untyped-def]
    """`run` as a CUDA graph, the way vllm replays decoding, so that Python's own time is left out."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def block_ms(torch, run, calls: int) -> float:  # type: ignore[no-untyped-def]
    """Milliseconds per call over a block of calls, by CUDA events."""
    start, end = (torch.cuda.Event(enable_timing=True) for _turn in range(2))
    start.record()
    for _call in range(calls):
        run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / calls


def in_turn(torch, baseline, candidate, rounds: int) -> list[list[float]]:  # type: ignore[no-untyped-def]
    """Pairs of milliseconds; who goes first changes with each pair."""
    for _turn in range(3):
        baseline(), candidate()
    torch.cuda.synchronize()
    slowest = max(block_ms(torch, baseline, 3), block_ms(torch, candidate, 3))
    calls = max(3, min(100, int(20 / max(slowest, 1e-3))))  # blocks of about 20 ms
    pairs = []
    for turn in range(rounds):
        sides = [("baseline", baseline), ("candidate", candidate)]
        times = {name: block_ms(torch, run, calls) for name, run in (sides if turn % 2 == 0 else reversed(sides))}
        pairs.append([times["baseline"], times["candidate"]])
    return pairs


def comparisons(torch, flashinfer, rounds: int):  # type: ignore[no-untyped-def]
    """Each comparison as (name, function that measures it)."""

    def attend(batch: int, context: int, tokens: int, graph: bool):  # type: ignore[no-untyped-def]
        theirs, ours, outputs, name = attention(torch, flashinfer, batch, context, tokens)
        theirs(), ours()
        distance = disagreement(outputs)
        if math.isnan(distance) or distance > TOLERANCE:
            raise ValueError(f"the two outputs differ by {distance:.3g}, expected at most {TOLERANCE:g}")
        if graph:
            theirs, ours = graph_of(torch, theirs), graph_of(torch, ours)
        return {"pairs": in_turn(torch, theirs, ours, rounds), "against": name, "disagreement": distance}

    def draw(batch: int):  # type: ignore[no-untyped-def]
        theirs, ours = sampling(torch, batch)
        return {"pairs": in_turn(torch, theirs, ours, rounds), "against": "vllm's PyTorch sampler"}

    for batch, context in DECODES:
        yield f"decode, batch {batch}, {context:,} tokens", lambda b=batch, c=context: attend(b, c, 1, False)
    for tokens in PREFILLS:
        yield f"prefill, {tokens:,} tokens", lambda t=tokens: attend(1, t, t, False)
    for batch in SAMPLINGS:
        yield f"top-k and top-p sampling, batch {batch}", lambda b=batch: draw(b)
    for batch, context in DECODES:
        yield (
            f"decode in a CUDA graph, batch {batch}, {context:,} tokens",
            lambda b=batch, c=context: attend(b, c, 1, True),
        )


def main() -> int:
    global shapes
    import gpu_kernels as shapes

    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)

    def say(event: str, **data: object) -> None:
        with open(request["events"], "a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **data}) + "\n")

    import torch

    found = shapes.describe(torch, "gpu")
    say("device", **found)
    if found["no_gpu"]:
        return 0
    import flashinfer

    torch.manual_seed(request["seed"])
    for name, measure in comparisons(torch, flashinfer, request["rounds"]):
        try:
            result = measure()
        except Exception as error:
            result = {"reason": shapes.shortened(f"{type(error).__name__}: {error}", 500)}
            if shapes.reason_of(error) == "crash":
                say("comparison", name=name, unit="ms", better="lower", **result)
                return 1  # the CUDA context is lost
        say("comparison", name=name, unit="ms", better="lower", **result)
        torch.cuda.empty_cache()
    say("end")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
