# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run by the Python of an environment: does FlashInfer import there, and do vllm's calls into it fit?

With the argument `kernels` the module that vllm compiles at its start is compiled and loaded as well, which needs nvcc
and no GPU; with `loaded` the libraries of the environment that are in the process after all this are listed. Prints one
line `MARK{json}` for each part, so that a crash loses only what comes after it. Standard library only.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import os
import re
import sys
import time
from pathlib import Path

MARK = "compatibility:"
ATTENTION = "vllm.v1.attention.backends.flashinfer"
SAMPLER = "vllm.v1.sample.ops.topk_topp_sampler"

# Where vllm 0.11.0 calls FlashInfer: the module, the call as it stands there, and what it reaches.
CALLS = (
    (ATTENTION, "BatchDecodeWithPagedKVCacheWrapper", "flashinfer:BatchDecodeWithPagedKVCacheWrapper"),
    (ATTENTION, "BatchPrefillWithPagedKVCacheWrapper", "flashinfer:BatchPrefillWithPagedKVCacheWrapper"),
    (ATTENTION, "prefill_wrapper.plan", "flashinfer:BatchPrefillWithPagedKVCacheWrapper.plan"),
    (ATTENTION, "prefill_wrapper.run", "flashinfer:BatchPrefillWithPagedKVCacheWrapper.run"),
    (ATTENTION, "self.plan", "flashinfer:BatchDecodeWithPagedKVCacheWrapper.plan"),
    (ATTENTION, "decode_wrapper.run", "flashinfer:BatchDecodeWithPagedKVCacheWrapper.run"),
    (ATTENTION, "trtllm_batch_decode_with_kv_cache", "flashinfer.decode:trtllm_batch_decode_with_kv_cache"),
    (ATTENTION, "trtllm_batch_context_with_kv_cache", "flashinfer.prefill:trtllm_batch_context_with_kv_cache"),
    (SAMPLER, "top_p_sampling_from_probs", "flashinfer.sampling:top_p_sampling_from_probs"),
    (SAMPLER, "top_k_sampling_from_probs", "flashinfer.sampling:top_k_sampling_from_probs"),
    (SAMPLER, "top_k_top_p_sampling_from_logits", "flashinfer.sampling:top_k_top_p_sampling_from_logits"),
)

# The compiled function that vllm's `fast_plan_decode` calls past FlashInfer's Python; its signature is in CUDA sources.
PLAN_CALL = "_cached_module.plan"
PLAN_SOURCES = ("batch_prefill.cu", "batch_prefill_jit_pybind.cu")
PLAN_FUNCTION = re.compile(r"\bBatchPrefillWithKVCachePlan\s*\(([^)]*)\)")

# How nvcc, g++ and the linker say what is wrong: `file.h(224): error: ...`, `file.h:12:10: fatal error: ...`,
# `ld: cannot find -lcudart: ...`.
COMPILER_ERROR = re.compile(r"[^\s/]+(?:\(\d+\)|:\d+:\d+): (?:fatal )?error: .*|\bld: .*")

NO_DRIVER = "libcuda.so.1: cannot open shared object file"


def last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300]


def source_of(module: str) -> ast.AST:
    """The module's syntax tree, without importing the module itself."""
    package, _dot, path = module.partition(".")
    folder = Path(next(iter(importlib.util.find_spec(package).submodule_search_locations)))  # type: ignore[union-attr, arg-type]
    return ast.parse((folder / (path.replace(".", "/") + ".py")).read_text(encoding="utf-8"))


def calls_of(tree: ast.AST, wanted: str) -> list[ast.Call]:
    """The calls of `wanted`, at the end of whatever expression leads to it."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if re.search(rf"(^|\.){re.escape(wanted)}$", ast.unparse(call.func))]


def misfit(call: ast.Call, target: object, bound: bool) -> str:
    """Why the call does not fit the signature, "" where it does. `bound`: the signature begins with self.

    A positional argument that carries another parameter's name is in the wrong place.
    """
    signature = inspect.signature(target)  # type: ignore[arg-type]
    positional = [ast.unparse(argument) for argument in call.args]
    keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
    try:
        signature.bind(*([None] if bound else []), *positional, **keywords)
    except TypeError as error:
        return str(error)
    names = list(signature.parameters)[1 if bound else 0 :]
    for place, (given, expected) in enumerate(zip(positional, names), start=1):
        if given in names and given != expected:
            return f"argument {place} is {given}, FlashInfer takes it for {expected}"
    return ""


def problem_of_calls(module: str, wanted: str, target: str) -> str:
    found = calls_of(source_of(module), wanted)
    if not found:
        return "vllm makes no such call"
    try:
        home, _colon, path = target.partition(":")
        reached: object = importlib.import_module(home)
        for name in path.split("."):
            reached = getattr(reached, name)
    except (ImportError, AttributeError) as error:
        return last_line(error)
    return next(filter(None, (misfit(call, reached, "." in path) for call in found)), "")


def problem_of_plan() -> str:
    """Whether the compiled plan function takes as many arguments as vllm passes."""
    passed = {len(call.args) for call in calls_of(source_of(ATTENTION), PLAN_CALL)}
    folder = Path(next(iter(importlib.import_module("flashinfer").__path__)))
    for name in PLAN_SOURCES:
        for path in sorted(folder.rglob(name)):
            match = PLAN_FUNCTION.search(path.read_text(encoding="utf-8"))
            if match:
                takes = len(match[1].split(","))
                return "" if passed == {takes} else f"vllm passes {max(passed)} arguments, FlashInfer takes {takes}"
    return "its source is not among FlashInfer's"


def imported(name: str) -> dict[str, str]:
    try:
        return {"version": str(getattr(importlib.import_module(name), "__version__", "")), "problem": ""}
    except BaseException as error:
        return {"version": "", "problem": last_line(error)}


def compiled() -> dict[str, object]:
    """Compile and load FlashInfer's `sampling`; `problem` is the compiler's first error.

    `loads` is False where the module was compiled and the driver's library, which it is linked against, is not here.
    """
    began = time.monotonic()
    try:
        sampling = importlib.import_module("flashinfer.sampling")
        if hasattr(sampling, "gen_sampling_module"):
            sampling.gen_sampling_module().build_and_load()
        else:
            sampling.get_sampling_module()  # 0.2.5 compiles as it loads
    except BaseException as error:
        first = COMPILER_ERROR.search(str(error))
        problem, loads = first[0][:200] if first else last_line(error), False
        if NO_DRIVER in str(error):
            problem = ""
    else:
        problem, loads = "", True
    return {"problem": problem, "loads": loads, "seconds": round(time.monotonic() - began)}


def loaded() -> list[str]:
    """The shared objects of this environment that the process has mapped, relative to it."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    paths = {line.split(maxsplit=5)[5] for line in maps if line.count("/")}
    return sorted(os.path.relpath(path, sys.prefix) for path in paths if path.startswith(sys.prefix + os.sep))


def say(part: str, found: object) -> None:
    sys.stdout.write(f"{MARK}{json.dumps({part: found})}\n")
    sys.stdout.flush()


def main() -> None:
    say("torch", imported("torch")["version"])
    flashinfer = imported("flashinfer")
    say("flashinfer", flashinfer)
    if flashinfer["problem"]:
        return
    rows = [(module, wanted, problem_of_calls(module, wanted, target)) for module, wanted, target in CALLS]
    rows.append((ATTENTION, "fast_plan_decode: " + PLAN_CALL, problem_of_plan()))
    say("calls", [{"module": module, "call": wanted, "problem": problem} for module, wanted, problem in rows])
    say("vllm", {name: imported(name)["problem"] for name in (ATTENTION, SAMPLER)})
    if "kernels" in sys.argv[1:]:
        say("kernels", compiled())
    if "loaded" in sys.argv[1:]:
        say("loaded", loaded())


if __name__ == "__main__":
    main()
    os._exit(0)  # what hangs in a broken extension's destructors is no finding
