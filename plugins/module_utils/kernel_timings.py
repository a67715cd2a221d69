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
# VLLM_FLASH_ATTN_MAX_NUM_SPLITS_FOR_CUDA_GRAPH of vllm 0.11.0.
GRAPH_SPLITS = 32
# bfloat16 attention by two programs: each is within 1e-2 of the reference, so twice that apart.
TOLERANCE = 2e-2


def attention_of_vllm():  # type: ignore[no-untyped-def]
    """vllm's own paged FlashAttention, and what it is called.

    Version 3 schedules its work ahead of the layers, as FlashInfer plans it: vllm does that once a step, so that here
    neither is timed. Where vllm captures a graph it bounds the splits (0.11.0, v1/attention/backends/flash_attn.py).
    """
    from vllm.attention.utils.fa_utils import get_flash_attn_version
    from vllm.vllm_flash_attn import flash_attn_varlen_func, get_scheduler_metadata

    version = get_flash_attn_version()

    def prepared(query, table, starts, lengths, tokens, out, splits):  # type: ignore[no-untyped-def]
        longest = int(table.shape[1]) * shapes.PAGE
        ahead = {}
        if version == 3:
            metadata = get_scheduler_metadata(
                batch_size=len(lengths),
                max_seqlen_q=tokens,
                max_seqlen_k=longest,
                num_heads_q=shapes.QUERY_HEADS,
                num_heads_kv=shapes.KV_HEADS,
                headdim=shapes.HEAD_DIM,
                cache_seqlens=lengths,
                qkv_dtype=query.dtype,
                cu_seqlens_q=starts,
                page_size=shapes.PAGE,
                causal=True,
                num_splits=splits,
            )
            ahead = {"scheduler_metadata": metadata, "num_splits": splits}

        def run(cache):  # type: ignore[no-untyped-def]
            return flash_attn_varlen_func(
                query,
                cache[:, 0],
                cache[:, 1],
                max_seqlen_q=tokens,
                cu_seqlens_q=starts,
                max_seqlen_k=longest,
                seqused_k=lengths,
                causal=True,
                block_table=table,
                out=out,
                fa_version=version,
                **ahead,
            )

        return run

    return prepared, f"vllm FlashAttention {version}"


def attention(torch, flashinfer, batch: int, context: int, tokens: int, graph: bool):  # type: ignore[no-untyped-def]
    """Two functions of a cache that compute the same attention, the caches, the outputs they write, and a name.

    A layer finds its cache in the GPU's memory, since all the others were read since it last was. A prefill has just
    written it.
    """
    device, pages = "cuda", batch * context // shapes.PAGE
    shape = (pages, 2, shapes.PAGE, shapes.KV_HEADS, shapes.HEAD_DIM)
    count = copies(math.prod(shape) * 2, l2_bytes(torch)) if tokens == 1 else 1
    caches = [torch.randn(shape, device=device, dtype=torch.bfloat16) for _cache in range(count)]
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
    prepared, name = attention_of_vllm()
    table = order.reshape(batch, -1).contiguous()
    lengths = torch.full_like(last, context)
    run_theirs = prepared(query, table, starts * tokens, lengths, tokens, theirs, GRAPH_SPLITS if graph else 0)
    return run_theirs, lambda cache: wrapper.run(query, cache, out=ours), caches, (theirs, ours), name


def l2_bytes(torch) -> int:  # type: ignore[no-untyped-def]
    """The size of the GPU's second-level cache."""
    return int(torch.cuda.get_device_properties(0).L2_cache_size)


def copies(cache_bytes: int, l2: int) -> int:
    """How many caches, read one after the other, leave none of them in the second-level cache until its next turn."""
    return max(1, math.ceil(4 * l2 / cache_bytes))


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


def in_turn(torch, baseline, candidate, rounds: int, each: int = 1) -> list[list[float]]:  # type: ignore[no-untyped-def]
    """Pairs of milliseconds per call, where a function does `each` calls; who goes first changes with each pair."""
    for _turn in range(3):
        baseline(), candidate()
    torch.cuda.synchronize()
    slowest = max(block_ms(torch, baseline, 3), block_ms(torch, candidate, 3))
    calls = max(3, min(100, int(20 / max(slowest, 1e-3))))  # blocks of about 20 ms
    pairs = []
    for turn in range(rounds):
        sides = [("baseline", baseline), ("candidate", candidate)]
        times = {name: block_ms(torch, run, calls) for name, run in (sides if turn % 2 == 0 else reversed(sides))}
        pairs.append([times["baseline"] / each, times["candidate"] / each])
    return pairs


def over(run, caches):  # type: ignore[no-untyped-def]
    """A function without arguments that runs over all caches."""

    def passed() -> None:
        for cache in caches:
            run(cache)

    return passed


def comparisons(torch, flashinfer, rounds: int):  # type: ignore[no-untyped-def]
    """Each comparison as (name, function that measures it)."""

    def attend(batch: int, context: int, tokens: int, graph: bool):  # type: ignore[no-untyped-def]
        run_theirs, run_ours, caches, outputs, name = attention(torch, flashinfer, batch, context, tokens, graph)
        theirs, ours = over(run_theirs, caches), over(run_ours, caches)
        theirs(), ours()
        distance = disagreement(outputs)
        if math.isnan(distance) or distance > TOLERANCE:
            raise ValueError(f"the two outputs differ by {distance:.3g}, expected at most {TOLERANCE:g}")
        if graph:
            theirs, ours = graph_of(torch, theirs), graph_of(torch, ours)
        pairs = in_turn(torch, theirs, ours, rounds, len(caches))
        return {"pairs": pairs, "against": name, "disagreement": distance, "caches": len(caches)}

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
