# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run small kernels at OlmOCR's shapes and hold what they compute against a float32 reference.

This file is a program: it is run by the Python of the environment under test, with PyTorch and perhaps FlashInfer, and
imports nothing of this collection. It reads one JSON request from the file named by its argument, and appends one JSON
line per event to the file named in the request, so that what was found before a crash is not lost with the process.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import json
import os
import re
import select
import signal
import statistics
import sys
import time
from typing import Any

# The language model of OlmOCR (Qwen2.5-VL-7B).
QUERY_HEADS, KV_HEADS, HEAD_DIM, HIDDEN, VOCABULARY, PAGE = 28, 4, 128, 3584, 152064, 16
WORKSPACE_BYTES = 256 * 1024 * 1024
TOP_K, TOP_P = 50, 0.9

# Written over an output before the kernel runs: a bfloat16 NaN that no arithmetic produces (its quiet bit is clear),
# so that "never written" and "computed a NaN" stay two findings.
POISON = 0x7FA5

# Triton looks names up in the globals of the module that holds the kernel; set where Triton is imported.
tl: Any = None

SIZES = {
    "gpu": {"rows": 512, "tokens": 2048, "batch": 20, "repeats": 30},
    "cpu": {"rows": 32, "tokens": 128, "batch": 4, "repeats": 3},
}
TOLERANCE = (
    1e-2,
    "FlashInfer's own tests accept 1e-2 for bfloat16; it bounds the worst row's |output - reference| / |reference|",
)
TOLERANCE_SAMPLING = (0.0, "a token outside the top-k and top-p sets has probability zero")


class Finding(Exception):
    """A check that failed, with one of the reasons that the caller tells apart."""

    def __init__(self, reason: str, message: str, **figures: object) -> None:
        super().__init__(message)
        self.reason, self.figures = reason, figures


# --- the deadline -----------------------------------------------------------------------------------------------------


class Deadline:
    """Ends the whole process group when a step takes too long.

    A process of its own watches, because a kernel that hangs may hold the interpreter's lock; and it ends the group,
    because compilers that FlashInfer started would go on working.
    """

    def __init__(self, events: str) -> None:
        reader, self.writer = os.pipe()
        if os.fork():
            os.close(reader)
            return
        os.close(self.writer)
        self._watch(reader, events)

    @staticmethod
    def _watch(reader: int, events: str) -> None:
        ends, step = None, ""
        while True:
            left = None if ends is None else max(0.0, ends - time.monotonic())
            if not select.select([reader], [], [], left)[0]:
                with open(events, "a", encoding="utf-8") as file:
                    file.write(json.dumps({"event": "timeout", "step": step}) + "\n")
                os.killpg(0, signal.SIGKILL)
            said = os.read(reader, 4096).decode()
            if not said:
                os._exit(0)
            seconds, step = said.strip().splitlines()[-1].split(" ", 1)
            ends = time.monotonic() + float(seconds)

    def set(self, seconds: float, step: str) -> None:
        os.write(self.writer, f"{seconds} {step}\n".encode())


# --- what every kernel goes through -----------------------------------------------------------------------------------


class Harness:
    """The device, the random numbers and the measurements that the kernels share."""

    def __init__(self, torch, mode: str, seed: int) -> None:  # type: ignore[no-untyped-def]
        self.torch, self.mode = torch, mode
        self.sizes = SIZES[mode]
        self.device = torch.device("cuda", 0) if mode == "gpu" else torch.device("cpu")
        self.generator = torch.Generator().manual_seed(seed)

    def random(self, *shape: int):  # type: ignore[no-untyped-def]
        """Fresh normal numbers as bfloat16, and the same numbers as float32 for the reference, both in RAM."""
        values = self.torch.randn(*shape, generator=self.generator).to(self.torch.bfloat16)
        return values.to(self.device), values.float()

    def poisoned(self, *shape: int):  # type: ignore[no-untyped-def]
        bits = self.torch.full(shape, POISON, dtype=self.torch.int16, device=self.device)
        return bits.view(self.torch.bfloat16)

    def poison_free_memory(self, *shape: int) -> None:
        """For functions that allocate their output: the allocator hands out the block that was freed last."""
        block = self.poisoned(*shape)
        self.synchronize()
        del block

    def synchronize(self) -> None:
        if self.mode == "gpu":
            self.torch.cuda.synchronize()

    def first_call(self, run):  # type: ignore[no-untyped-def]
        started = time.perf_counter()
        output = run()
        self.synchronize()
        return output, time.perf_counter() - started

    def median_ms(self, run) -> float:  # type: ignore[no-untyped-def]
        """The median over single calls, warm: by CUDA events on a GPU, by the clock on a CPU."""
        for _turn in range(3):
            run()
        times = []
        for _turn in range(self.sizes["repeats"]):
            if self.mode == "gpu":
                start, end = (self.torch.cuda.Event(enable_timing=True) for _turn in range(2))
                start.record()
                run()
                end.record()
                end.synchronize()
                times.append(start.elapsed_time(end))
            else:
                started = time.perf_counter()
                run()
                times.append(1000 * (time.perf_counter() - started))
        return round(statistics.median(times), 4)

    def check_device(self, output) -> None:  # type: ignore[no-untyped-def]
        if output.device != self.device:
            raise Finding("wrong_device", f"expected the output on {self.device}, found it on {output.device}")

    def compare(self, output, reference, tolerance: float) -> float:  # type: ignore[no-untyped-def]
        """The worst row's relative error; a `Finding` where the output is missing, NaN or beyond the tolerance."""
        torch = self.torch
        self.check_device(output)
        if tuple(output.shape) != tuple(reference.shape):
            raise Finding(
                "wrong_result", f"expected the shape {tuple(reference.shape)}, found {tuple(output.shape)}", error=None
            )
        found = output.detach().cpu().contiguous()
        if found.dtype == torch.bfloat16:
            untouched = int((found.view(torch.int16) == POISON).sum())
            if untouched:
                raise Finding(
                    "unwritten",
                    f"expected every output element to be written, found {untouched} of {found.numel()} output "
                    "elements untouched",
                )
        found = found.float()
        strange = int((~torch.isfinite(found)).sum())
        if strange:
            raise Finding(
                "nan", f"expected finite numbers, found {strange} of {found.numel()} output elements NaN or infinite"
            )
        difference = (found - reference).flatten(0, -2).norm(dim=-1)
        error = float((difference / reference.flatten(0, -2).norm(dim=-1).clamp_min(1e-20)).max())
        if not error <= tolerance:
            raise Finding(
                "wrong_result",
                f"expected a relative error of at most {tolerance:g} against the float32 reference, found {error:.3g}",
                error=error,
            )
        return error


def attention_reference(torch, query, key, value, causal):  # type: ignore[no-untyped-def]
    """Grouped-query attention in float32 on the CPU. Query [tokens, heads, dim], key, value [tokens, kv heads, dim]."""
    tokens, heads, dim = query.shape
    group = heads // key.shape[1]
    output = torch.empty_like(query)
    mask = torch.ones(tokens, key.shape[0], dtype=torch.bool).tril(key.shape[0] - tokens) if causal else None
    for head in range(heads):
        scores = query[:, head] @ key[:, head // group].T / dim**0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        output[:, head] = scores.softmax(-1) @ value[:, head // group]
    return output


def measure(harness, name, run, reference, shapes, request):  # type: ignore[no-untyped-def]
    """Run once on a poisoned output, judge it, then time it."""
    tolerance, source = request_tolerance(request, TOLERANCE)
    figures = {"shapes": shapes, "tolerance": tolerance, "tolerance_source": source}
    try:
        output, figures["first_call_seconds"] = harness.first_call(run)
        figures["first_call_seconds"] = round(figures["first_call_seconds"], 4)
        figures["error"] = harness.compare(output, reference, tolerance)
        figures["median_ms"] = harness.median_ms(run)
    except Finding as finding:
        finding.figures = {**figures, **finding.figures}
        raise
    return figures


def request_tolerance(request: dict, default: tuple) -> tuple:
    if request.get("tolerance") is not None and default[0] > 0:
        return request["tolerance"], "the task's option tolerance"
    return default


# --- the kernels ------------------------------------------------------------------------------------------------------


def torch_matmul(harness, request):  # type: ignore[no-untyped-def]
    torch, rows = harness.torch, harness.sizes["rows"]
    left, left32 = harness.random(rows, HIDDEN)
    right, right32 = harness.random(HIDDEN, HIDDEN)
    out = harness.poisoned(rows, HIDDEN)
    return measure(
        harness,
        "torch_matmul",
        lambda: torch.matmul(left, right, out=out),
        left32 @ right32,
        {"left": [rows, HIDDEN], "right": [HIDDEN, HIDDEN], "dtype": "bfloat16"},
        request,
    )


def torch_attention(harness, request):  # type: ignore[no-untyped-def]
    torch, tokens = harness.torch, harness.sizes["tokens"]
    query, query32 = harness.random(tokens, QUERY_HEADS, HEAD_DIM)
    key, key32 = harness.random(tokens, KV_HEADS, HEAD_DIM)
    value, value32 = harness.random(tokens, KV_HEADS, HEAD_DIM)

    def batched(tensor):  # type: ignore[no-untyped-def]
        return tensor.transpose(0, 1).unsqueeze(0)

    def run():  # type: ignore[no-untyped-def]
        result = torch.nn.functional.scaled_dot_product_attention(
            batched(query), batched(key), batched(value), is_causal=True, enable_gqa=True
        )
        return result[0].transpose(0, 1)

    reference = attention_reference(torch, query32, key32, value32, causal=True)
    harness.poison_free_memory(1, QUERY_HEADS, tokens, HEAD_DIM)
    shapes = {"query": [1, QUERY_HEADS, tokens, HEAD_DIM], "key_value": [1, KV_HEADS, tokens, HEAD_DIM]}
    return measure(harness, "torch_attention", run, reference, {**shapes, "dtype": "bfloat16", "causal": True}, request)


def triton_kernel(harness, request):  # type: ignore[no-untyped-def]
    global tl
    import triton
    import triton.language as tl

    kernel = triton.jit(_scaled_sum)
    rows = harness.sizes["rows"]
    left, left32 = harness.random(rows, HIDDEN)
    right, right32 = harness.random(rows, HIDDEN)
    out = harness.poisoned(rows, HIDDEN)

    def run():  # type: ignore[no-untyped-def]
        count = rows * HIDDEN
        kernel[(triton.cdiv(count, 1024),)](left, right, out, count, BLOCK=1024)
        return out

    shapes = {"left": [rows, HIDDEN], "right": [rows, HIDDEN], "dtype": "bfloat16"}
    return measure(harness, "triton_kernel", run, left32 * 0.5 + right32, shapes, request)


def _scaled_sum(left, right, out, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < count
    left_values = tl.load(left + offsets, mask=inside).to(tl.float32)
    right_values = tl.load(right + offsets, mask=inside).to(tl.float32)
    tl.store(out + offsets, (left_values * 0.5 + right_values).to(tl.bfloat16), mask=inside)


def unequal_lengths(tokens: int, batch: int) -> list[int]:
    """From `tokens` down to about half of it by an odd step: few of the last pages are full, as in service."""
    step = tokens // (2 * batch) | 1
    return [tokens - step * item for item in range(batch)]


def paged_cache(harness, lengths):  # type: ignore[no-untyped-def]
    """A paged key/value cache (NHD) whose pages lie in random order, its index tensors, and each request's numbers.

    What lies behind the end of a last page are numbers like all others, so that reading them tells.
    """
    torch = harness.torch
    pages = [-(-length // PAGE) for length in lengths]
    cache, cache32 = harness.random(sum(pages), 2, PAGE, KV_HEADS, HEAD_DIM)
    order = torch.randperm(sum(pages), generator=harness.generator)
    ends = torch.tensor(pages).cumsum(0).tolist()
    last = [length - PAGE * (count - 1) for length, count in zip(lengths, pages)]

    def on_device(values):  # type: ignore[no-untyped-def]
        return torch.as_tensor(values).to(torch.int32).to(harness.device)

    index = {"indptr": on_device([0, *ends]), "indices": on_device(order), "last": on_device(last)}
    # Of each request [tokens, kv heads, dim], as the reference reads it.
    keys, values = (
        [
            cache32[order[end - count : end], part].flatten(0, 1)[:length]
            for end, count, length in zip(ends, pages, lengths)
        ]
        for part in (0, 1)
    )
    return cache, index, keys, values


def flashinfer_decode(harness, request):  # type: ignore[no-untyped-def]
    torch, batch = harness.torch, harness.sizes["batch"]
    lengths = unequal_lengths(harness.sizes["tokens"], batch)
    cache, index, keys, values = paged_cache(harness, lengths)
    query, query32 = harness.random(batch, QUERY_HEADS, HEAD_DIM)
    reference = torch.cat(
        [
            attention_reference(torch, query32[item : item + 1], keys[item], values[item], causal=False)
            for item in range(batch)
        ]
    )
    # Seven query heads share one key/value head: FlashInfer has that group size in its tensor-core kernels only.
    wrapper: tuple = ("BatchDecodeWithPagedKVCacheWrapper", {"use_tensor_cores": True}, lengths)
    return paged_attention(harness, "flashinfer_decode", wrapper, (), index, (query, cache, reference), {}, request)


def flashinfer_prefill(harness, request):  # type: ignore[no-untyped-def]
    torch = harness.torch
    lengths = unequal_lengths(harness.sizes["tokens"], 2)
    cache, index, keys, values = paged_cache(harness, lengths)
    query, query32 = harness.random(sum(lengths), QUERY_HEADS, HEAD_DIM)
    reference = torch.cat(
        [
            attention_reference(torch, part, key, value, causal=True)
            for part, key, value in zip(query32.split(lengths), keys, values)
        ]
    )
    wrapper: tuple = ("BatchPrefillWithPagedKVCacheWrapper", {}, lengths)
    queries = (torch.tensor([0, lengths[0], sum(lengths)], dtype=torch.int32, device=harness.device),)
    tensors, causal = (query, cache, reference), {"causal": True}
    return paged_attention(harness, "flashinfer_prefill", wrapper, queries, index, tensors, causal, request)


def paged_attention(harness, name, wrapper, queries, index, tensors, options, request):  # type: ignore[no-untyped-def]
    """Plan and run one of FlashInfer's wrappers, given as (name, options, tokens of each request).

    `queries` are the arguments of `plan` that come before the pages.
    """
    import flashinfer

    torch = harness.torch
    query, cache, reference = tensors
    kind, how, lengths = wrapper
    out = harness.poisoned(*query.shape)

    @functools.lru_cache(None)
    def planned():  # type: ignore[no-untyped-def]
        workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=harness.device)
        made = getattr(flashinfer, kind)(workspace, "NHD", **how)
        pages = (index["indptr"], index["indices"], index["last"])
        types = {"q_data_type": torch.bfloat16, "kv_data_type": torch.bfloat16}
        made.plan(*queries, *pages, QUERY_HEADS, KV_HEADS, HEAD_DIM, PAGE, **options, **types)
        return made

    shapes = {
        "query": list(query.shape),
        "tokens": lengths,
        "kv_heads": KV_HEADS,
        "page_size": PAGE,
        "dtype": "bfloat16",
        **options,
    }
    return measure(harness, name, lambda: planned().run(query, cache, out=out), reference, shapes, request)


def sampling_mask(torch, probabilities, top_k: int, top_p: float):  # type: ignore[no-untyped-def]
    """Which tokens may be drawn: the top k, and of these, renormalised, the smallest set that reaches top_p.

    Ties, and the last bits of the sum, are decided in the kernel's favour.
    """
    ordered, positions = probabilities.double().sort(-1, descending=True)
    kept = ordered >= ordered[:, top_k - 1 : top_k] * (1 - 1e-6)
    ordered = ordered * kept
    before = (ordered.cumsum(-1) - ordered) / ordered.sum(-1, keepdim=True)
    return torch.zeros_like(kept).scatter(-1, positions, kept & (before < top_p + 1e-5))


def flashinfer_sampling(harness, request):  # type: ignore[no-untyped-def]
    import flashinfer

    torch, batch = harness.torch, harness.sizes["batch"]
    logits = torch.randn(batch, VOCABULARY, generator=harness.generator) * 2
    probabilities = logits.softmax(-1)
    allowed = sampling_mask(torch, probabilities, TOP_K, TOP_P)
    on_device = probabilities.to(harness.device)
    tolerance, source = TOLERANCE_SAMPLING

    def run():  # type: ignore[no-untyped-def]
        return flashinfer.sampling.top_k_top_p_sampling_from_probs(on_device, TOP_K, TOP_P)

    figures = {
        "shapes": {"probabilities": [batch, VOCABULARY], "top_k": TOP_K, "top_p": TOP_P, "dtype": "float32"},
        "tolerance": tolerance,
        "tolerance_source": source,
    }
    try:
        harness.poison_free_memory(batch, 2)
        tokens, seconds = harness.first_call(run)
        figures["first_call_seconds"] = round(seconds, 4)
        harness.check_device(tokens)
        # One draw could be right by luck, and always the most likely token would be inside the mask too.
        draws = torch.stack([tokens, *(run() for _turn in range(19))]).cpu().long()
        figures["error"] = judge_draws(torch, draws, probabilities, allowed)
        figures["median_ms"] = harness.median_ms(run)
    except Finding as finding:
        finding.figures = {**figures, **finding.figures}
        raise
    return figures


def judge_draws(torch, draws, probabilities, allowed) -> float:  # type: ignore[no-untyped-def]
    """The share of drawn tokens that lie outside the mask; `draws` is [draws, batch]."""
    strange = int(((draws < 0) | (draws >= probabilities.shape[-1])).sum())
    if strange:
        raise Finding(
            "unwritten", f"expected tokens of the vocabulary, found {strange} of {draws.numel()} drawn ones outside it"
        )
    outside = 1.0 - float(allowed.gather(-1, draws.T).float().mean())
    if outside > 0:
        raise Finding(
            "wrong_result",
            f"expected every token inside the top-k and top-p sets, found {outside:.1%} outside",
            error=outside,
        )
    if bool((draws == draws[0]).all()) and int(allowed.sum(-1).min()) > 1:
        raise Finding(
            "wrong_result", f"expected random tokens, found the same ones in each of {len(draws)} draws", error=outside
        )
    return outside


KERNELS = {
    "torch_matmul": torch_matmul,
    "torch_attention": torch_attention,
    "triton_kernel": triton_kernel,
    "flashinfer_decode": flashinfer_decode,
    "flashinfer_prefill": flashinfer_prefill,
    "flashinfer_sampling": flashinfer_sampling,
}
ON_CPU = ("torch_matmul", "torch_attention")


# --- where a kernel's code came from ----------------------------------------------------------------------------------


# <cache>/cached_ops/<uri>/<uri>.so, <package>/data/aot/<uri>/<uri>.so, and those of the package flashinfer-jit-cache
CACHED, PLACED, JIT_CACHE = "/cached_ops/", "/flashinfer/data/aot/", "/flashinfer_jit_cache/"
OF_FLASHINFER = (CACHED, PLACED, JIT_CACHE)


def loaded_modules() -> dict[str, float]:
    """The compiled FlashInfer modules mapped into this process, with the time when each file was written."""
    result = {}
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            path = line.rstrip("\n").split(None, 5)[-1]
            # Other extensions, as those of torch, are laid out in the same way.
            named = os.path.basename(os.path.dirname(path)) == os.path.basename(path)[:-3]
            if path.endswith(".so") and named and any(folder in path for folder in OF_FLASHINFER):
                with contextlib.suppress(OSError):
                    result[path] = os.stat(path).st_mtime
    return result


def vouched_for(path: str) -> bool:
    """Whether the manifest of a pack, beside the modules that FlashInfer loads unasked, has this very file."""
    manifest = os.path.join(os.path.dirname(os.path.dirname(path)), "ocrfleet-pack.json")
    try:
        with open(manifest, encoding="utf-8") as file:
            entry = json.load(file)["modules"][os.path.basename(path)[:-3]]
        with open(path, "rb") as module:
            return bool(entry["sha256"] == hashlib.sha256(module.read()).hexdigest())
    except (OSError, ValueError, LookupError, TypeError):
        return False


def module_origin(path: str, written: float, started: float) -> str:
    if JIT_CACHE in path:
        return "pack"
    if PLACED in path:
        return "pack" if vouched_for(path) else "unlisted"
    # One second of slack: file times are kept coarser than the clock that says when the call began.
    return "compiled" if written >= started - 1 else "cache"


def overall_origin(modules: list[dict]) -> str:
    origins = {module["origin"] for module in modules}
    return next((origin for origin in ("unlisted", "compiled", "cache", "pack") if origin in origins), "unknown")


def triton_cache_files() -> set:
    folder = os.environ.get("TRITON_CACHE_DIR") or os.path.join(os.path.expanduser("~"), ".triton", "cache")
    return {
        os.path.join(root, file)
        for root, _folders, files in os.walk(folder)
        for file in files
        if file.endswith(".cubin")
    }


class Origin:
    """Tells, around one kernel, whether its code was compiled now, taken from a cache, from a pack, or is built in."""

    # A module that an earlier kernel of this process has loaded is not loaded again: decode and prefill share one.
    _earlier: list[dict] = []
    _SHARING = ("flashinfer_decode", "flashinfer_prefill")

    def __init__(self, kernel: str) -> None:
        self.kernel, self.started = kernel, time.time()
        self.before = triton_cache_files() if kernel == "triton_kernel" else set(loaded_modules())

    def figures(self) -> dict:
        if self.kernel.startswith("torch_"):
            return {"origin": "builtin", "modules": []}
        if self.kernel == "triton_kernel":
            return {"origin": "compiled" if triton_cache_files() - self.before else "cache", "modules": []}
        new = [
            {"name": os.path.basename(path)[:-3], "path": path, "origin": module_origin(path, written, self.started)}
            for path, written in sorted(loaded_modules().items())
            if path not in self.before
        ]
        Origin._earlier += new
        earlier = Origin._earlier if self.kernel in self._SHARING else []
        modules = new or [module for module in earlier if module["name"].startswith("batch_")]
        return {"origin": overall_origin(modules), "modules": modules}


# --- errors told apart ------------------------------------------------------------------------------------------------


# The host's memory was not enough for a compiler: gcc's words, and its driver's and nvcc's of a part that was killed.
_STARVED = re.compile(
    r"virtual memory exhausted|cc1plus: out of memory|Killed signal terminated program|died due to signal 9"
    r"|[Nn]inja.*(?:t allocate memory|out of memory)",
    re.DOTALL,
)


def reason_of(error: BaseException) -> str:
    """The reason that an exception stands for; see the module's documentation for what each means."""
    names = [kind.__name__ for kind in type(error).__mro__]
    text = str(error)
    if "OutOfMemoryError" in names:
        return "out_of_memory"
    if _STARVED.search(text):
        return "compile_error"
    if isinstance(error, MemoryError) or re.search("out of memory|t allocate memory", text):
        return "out_of_memory"
    if "no kernel image is available" in text:
        return "wrong_device"
    if "CUDA error" in text or "AcceleratorError" in names:
        return "crash"
    if isinstance(error, ImportError) or "undefined symbol" in text or "cannot open shared object file" in text:
        return "import_error"
    if re.search(r"[Nn]inja|nvcc|compil|Could not find CUDA|CUDA_HOME", text) or "CompilationError" in names:
        return "compile_error"
    return "error"


def shortened(text: str, limit: int = 2000) -> str:
    """The beginning and the end: a compiler's output has its cause in the one and its summary in the other."""
    return text if len(text) <= limit else f"{text[: limit // 2]}\n[...]\n{text[-limit // 2 :]}"


def run_kernel(harness: Harness, kernel: str, request: dict) -> dict:
    origin = Origin(kernel)
    try:
        result = {"status": "passed", **KERNELS[kernel](harness, request)}
    except Finding as finding:
        result = {"status": "failed", "reason": finding.reason, "message": str(finding), **finding.figures}
    except Exception as error:
        message = shortened(f"{type(error).__name__}: {error}")
        result = {"status": "failed", "reason": reason_of(error), "message": message}
    return {**result, **origin.figures()}


# --- the program ------------------------------------------------------------------------------------------------------


def describe(torch, mode: str) -> dict:  # type: ignore[no-untyped-def]
    """The device as PyTorch sees it, or why there is none."""
    found = {"torch": str(torch.__version__), "torch_cuda": torch.version.cuda, "device": "cpu", "no_gpu": ""}
    if mode == "cpu":
        return found
    found["device"] = ""
    if torch.version.cuda is None:
        found["no_gpu"] = (
            f"expected a PyTorch with CUDA, found {torch.__version__}, which is built without; install a build for it"
        )
    elif not torch.cuda.is_available():
        said = "is_available() is False"
        try:
            torch.cuda.init()
        except Exception as error:
            said = shortened(str(error), 300)
        found["no_gpu"] = (
            f"expected a CUDA device that PyTorch can use, found none ({said}); on a GPU host see nvidia-smi and "
            "CUDA_VISIBLE_DEVICES"
        )
    else:
        major, minor = torch.cuda.get_device_capability(0)
        free, total = torch.cuda.mem_get_info(0)
        found.update(
            device=torch.cuda.get_device_name(0),
            capability=f"{major}.{minor}",
            architectures=torch.cuda.get_arch_list(),
            memory_free_mib=free // 2**20,
            memory_total_mib=total // 2**20,
        )
    return found


def main() -> int:
    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)
    events = request["events"]
    deadline = Deadline(events)

    def say(event: str, **data: object) -> None:
        with open(events, "a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **data}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    deadline.set(request["timeout"], "start")
    try:
        import torch

        found = describe(torch, request["mode"])
    except Exception as error:
        say("start_failed", reason=reason_of(error), message=shortened(f"{type(error).__name__}: {error}"))
        return 1
    say("device", **found)
    expected = request.get("capability")
    if found["no_gpu"]:
        return 0
    if request["mode"] == "gpu" and expected and found["capability"] != expected:
        message = f"expected compute capability {expected}, found {found['capability']} ({found['device']})"
        say("start_failed", reason="wrong_device", message=message)
        return 1
    for kernel in request["kernels"]:
        say("begin", kernel=kernel)
        deadline.set(request["timeout"], kernel)
        harness = Harness(torch, request["mode"], request["seed"])
        result = run_kernel(harness, kernel, request)
        say("result", kernel=kernel, **result)
        if result.get("reason") in ("crash", "wrong_device"):
            return 1  # after such an error the CUDA context answers every call with it; a new process goes on
        del harness
        gc.collect()
        if request["mode"] == "gpu":
            torch.cuda.empty_cache()
    say("end")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
