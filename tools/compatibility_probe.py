# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run by the Python of an environment: do FlashInfer and vllm's modules for it import, and do their calls fit?

    compatibility_probe.py imports | calls | kernel

Prints one JSON object as its last line. Standard library only; each part is a process of its own, since a broken
extension may take the interpreter with it.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import re
import sys
import time
from pathlib import Path

# What OlmOCR's vllm reaches: the attention backend, the sampler, and the wrapper that all else goes through.
VLLM_MODULES = (
    "vllm.utils.flashinfer",
    "vllm.v1.sample.ops.topk_topp_sampler",
    "vllm.v1.attention.backends.flashinfer",
)

# Where vllm calls FlashInfer: the file, the call as it stands there, and what it reaches. Methods begin with a class.
CALLS = (
    ("v1/attention/backends/flashinfer.py", "BatchDecodeWithPagedKVCacheWrapper", "flashinfer:{}"),
    ("v1/attention/backends/flashinfer.py", "BatchPrefillWithPagedKVCacheWrapper", "flashinfer:{}"),
    (
        "v1/attention/backends/flashinfer.py",
        "prefill_wrapper.plan",
        "flashinfer:BatchPrefillWithPagedKVCacheWrapper.plan",
    ),
    (
        "v1/attention/backends/flashinfer.py",
        "prefill_wrapper.run",
        "flashinfer:BatchPrefillWithPagedKVCacheWrapper.run",
    ),
    ("v1/attention/backends/flashinfer.py", "decode_wrapper.run", "flashinfer:BatchDecodeWithPagedKVCacheWrapper.run"),
    ("v1/attention/backends/flashinfer.py", "self.plan", "flashinfer:BatchDecodeWithPagedKVCacheWrapper.plan"),
    ("v1/attention/backends/flashinfer.py", "trtllm_batch_decode_with_kv_cache", "flashinfer.decode:{}"),
    ("v1/attention/backends/flashinfer.py", "trtllm_batch_context_with_kv_cache", "flashinfer.prefill:{}"),
    ("v1/sample/ops/topk_topp_sampler.py", "flashinfer.sampling.top_p_sampling_from_probs", "flashinfer.sampling:{}"),
    ("v1/sample/ops/topk_topp_sampler.py", "flashinfer.sampling.top_k_sampling_from_probs", "flashinfer.sampling:{}"),
    (
        "v1/sample/ops/topk_topp_sampler.py",
        "flashinfer.sampling.top_k_top_p_sampling_from_logits",
        "flashinfer.sampling:{}",
    ),
)

# The compiled function that plans a decode with tensor cores, and vllm's direct call of it.
PLAN_SOURCES = ("batch_prefill.cu", "batch_prefill_jit_pybind.cu", "batch_prefill_jit_binding.cu")
PLAN_FUNCTION = "BatchPrefillWithKVCachePlan"


def last_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1] if text else ''}"[:300]


def imports() -> dict:
    found: dict = {"torch": {}, "flashinfer": {"version": None, "problem": ""}, "vllm": {}}
    import torch

    metadata = importlib.metadata.version("torch")
    found["torch"] = {"metadata": metadata, "version": torch.__version__, "cuda": torch.version.cuda}
    for name in ("flashinfer", *VLLM_MODULES):
        problem = ""
        try:
            module = importlib.import_module(name)
        except BaseException as error:
            problem = last_line(error)
        if name == "flashinfer":
            version = getattr(module, "__version__", None) if not problem else None
            found["flashinfer"] = {"version": version, "problem": problem}
        else:
            found["vllm"][name] = problem
    return found


def folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def calls_in(tree: ast.AST, wanted: str) -> list[ast.Call]:
    """The calls of `wanted`, at the end of whatever expression leads to it."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if re.search(rf"(^|\.){re.escape(wanted)}$", ast.unparse(call.func))]


def reach(target: str) -> object:
    module, _colon, path = target.partition(":")
    found: object = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def misfit(call: ast.Call, target: object, method: bool) -> str:
    """Why the call does not fit the signature; positional arguments must also carry the parameters' names."""
    signature = inspect.signature(target)  # type: ignore[arg-type]
    positional = [ast.unparse(argument) for argument in call.args]
    keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
    try:
        signature.bind(*([None] if method else []), *positional, **keywords)
    except TypeError as error:
        return str(error)
    names = list(signature.parameters)[1 if method else 0 :]
    for place, (given, expected) in enumerate(zip(positional, names)):
        if given in names and given != expected:
            return f"argument {place + 1} is {given}, FlashInfer takes it for {expected}"
    return ""


def parameters_of_plan() -> int | None:
    """How many arguments the compiled plan function takes, read from FlashInfer's CUDA sources."""
    for name in PLAN_SOURCES:
        for path in sorted(folder("flashinfer").rglob(name)):
            match = re.search(PLAN_FUNCTION + r"\s*\(([^)]*)\)", path.read_text(encoding="utf-8"))
            if match:
                return len(match[1].split(","))
    return None


def calls() -> list[dict]:
    rows = []
    for file, wanted, target in CALLS:
        tree = ast.parse((folder("vllm") / file).read_text(encoding="utf-8"))
        target = target.format(wanted.rpartition(".")[2])
        problem = ""
        try:
            reached = reach(target)
            method = target.partition(":")[2].count(".") == 1
            found = calls_in(tree, wanted)
            problem = next(filter(None, (misfit(call, reached, method) for call in found)), "")
            problem = problem if found else "vllm makes no such call"
        except (ImportError, AttributeError) as error:
            problem = last_line(error)
        rows.append({"file": file, "call": wanted, "problem": problem})
    backend = ast.parse((folder("vllm") / CALLS[0][0]).read_text(encoding="utf-8"))
    passed = {len(call.args) for call in calls_in(backend, "_cached_module.plan")}
    takes = parameters_of_plan()
    problem = "" if passed == {takes} else f"vllm passes {max(passed)} arguments, the compiled function takes {takes}"
    rows.append({"file": CALLS[0][0], "call": "fast_plan_decode", "problem": problem})
    return rows


def kernel() -> dict:
    """Compile and link the module that appends to the cache, the smallest of those that vllm uses."""
    started = time.monotonic()
    try:
        page = importlib.import_module("flashinfer.page")
        spec = page.gen_page_module()
        # Up to 0.2.5 generating compiles and loads.
        if hasattr(spec, "build"):
            spec.build(verbose=False)
        problem = ""
    except BaseException as error:
        said = str(error).splitlines()
        wrong = [line for line in said if re.search(r"\berror\b|cannot find|No such file", line)]
        problem = (wrong or said or [type(error).__name__])[0][-300:]
    return {"module": "page", "problem": problem, "seconds": round(time.monotonic() - started, 1)}


if __name__ == "__main__":
    answer = {"imports": imports, "calls": calls, "kernel": kernel}[sys.argv[1]]()
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()
    os._exit(0)  # what hangs in a broken extension's destructors is no finding
