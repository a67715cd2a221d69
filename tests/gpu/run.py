#!/usr/bin/env python3
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Try gpu_smoke, flashinfer_info and kernel_pack on a real GPU, in one call and without network.

    python3 tests/gpu/run.py WHEELS OUT

WHEELS is a folder with ansible-core and FlashInfer and what both need beyond the Python that runs this, which must have
PyTorch. Its environment is cloned twice, and only the clones are changed. OUT gets results.json and results.md.
The exit code is 0 when every check passed.
"""

from __future__ import annotations

import datetime
import glob
import json
import os
import shutil
import subprocess
import sys
import time

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORK = os.environ.get("GPU_TEST_WORK", "/tmp/gpu-test")  # noqa: S108
TORCH_KERNELS = ["torch_matmul", "torch_attention", "triton_kernel"]
FLASHINFER_KERNELS = ["flashinfer_decode", "flashinfer_prefill", "flashinfer_sampling"]
CONTROL = ("ansible_core", "resolvelib", "cryptography", "cffi", "pycparser")
# No nvcc, no ninja, and nothing at the place where FlashInfer would look for nvcc next.
NO_COMPILER = {"PATH": "/usr/bin:/bin", "CUDA_HOME": "/nonexistent"}

checks: list[dict] = []
figures: dict = {}


def check(name: str, good: object, seen: object) -> None:
    checks.append({"check": name, "passed": bool(good), "seen": seen})
    print(f"{'ok  ' if good else 'FAIL'} {name}: {seen}", flush=True)


def command(argv: list[str], **more: object) -> subprocess.CompletedProcess:
    return subprocess.run(argv, check=True, text=True, **more)  # type: ignore[call-overload,no-any-return]


def clone(source: str, target: str) -> float:
    started = time.monotonic()
    shutil.rmtree(target, ignore_errors=True)
    if subprocess.run(["cp", "-al", source, target], stderr=subprocess.DEVNULL).returncode:
        shutil.rmtree(target, ignore_errors=True)
        command(["cp", "-a", source, target])
    # What is written in place must not be shared with the source.
    command(["cp", "--remove-destination", os.path.join(source, "pyvenv.cfg"), os.path.join(target, "pyvenv.cfg")])
    return round(time.monotonic() - started, 1)


def module(name: str, arguments: dict, *flags: str) -> dict:
    """Run one module by Ansible itself, and return its result."""
    tree = os.path.join(WORK, "tree")
    shutil.rmtree(tree, ignore_errors=True)
    env = {
        **os.environ,
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": os.path.join(WORK, "control"),
        "ANSIBLE_CONFIG": os.path.join(REPOSITORY, "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": os.path.join(REPOSITORY, "collections"),
    }
    argv = [sys.executable, "-m", "ansible", "adhoc", "localhost", "-i", "localhost,", "-c", "local", "-t", tree]
    argv += ["-e", f"ansible_python_interpreter={sys.executable}", "-m", f"ocrfleet.gpu_stack.{name}"]
    done = subprocess.run([*argv, "-a", json.dumps(arguments), *flags], env=env, text=True, capture_output=True)
    try:
        with open(os.path.join(tree, "localhost"), encoding="utf-8") as file:
            return {**json.load(file), "failed": done.returncode != 0}  # the tree callback drops `failed`
    except OSError:
        sys.exit(f"ansible gave no result for {name}:\n{done.stdout}\n{done.stderr}")


def smoke(environment: str, kernels: list[str], env: dict, *flags: str, timeout: int = 240) -> dict:
    arguments = {"environment": environment, "kernels": kernels, "env": env, "timeout": timeout}
    result = module("gpu_smoke", arguments, *flags)
    result["by_name"] = {entry["name"]: entry for entry in result.get("kernels", [])}
    return result


def brief(result: dict) -> list[str]:
    keys = ("name", "status", "reason", "error", "first_call_seconds", "median_ms", "origin")
    return [" ".join(str(entry.get(key)) for key in keys) for entry in result.get("kernels", [])] or [
        str(result.get("msg"))
    ]


def prepare(wheels: str) -> tuple[str, str]:
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir"]
    names = sorted(glob.glob(os.path.join(wheels, "*.whl")))
    control = [name for name in names if os.path.basename(name).startswith(CONTROL)]
    command([*pip, "--target", os.path.join(WORK, "control"), *control])
    first, second = os.path.join(WORK, "first"), os.path.join(WORK, "second")
    figures["clone_seconds"] = clone(sys.prefix, first)
    site = glob.glob(os.path.join(first, "lib", "python3*", "site-packages"))[0]
    command([*pip, "--target", site, *[name for name in names if name not in control]])
    clone(first, second)
    return first, second


def check_torch(first: str) -> None:
    info = module("flashinfer_info", {"environment": first})
    figures["info"] = {key: info.get(key) for key in ("problems", "remarks", "torch", "flashinfer", "gpu", "compiler")}
    check("flashinfer_info sees the GPU", info["gpu"]["gpus"] and info["torch"]["capability"], info["gpu"])
    check("flashinfer_info imports FlashInfer", info["flashinfer"]["version"], info["flashinfer"])
    check("flashinfer_info has no problem to tell", not info["problems"], info["problems"] or info["remarks"])
    dry = smoke(first, TORCH_KERNELS, {}, "--check")
    check("check mode runs nothing", {e["reason"] for e in dry["kernels"]} == {"check_mode"}, dry["msg"])
    result = smoke(first, TORCH_KERNELS, {"TRITON_CACHE_DIR": os.path.join(WORK, "triton")})
    figures["torch"] = result["kernels"]
    check("the PyTorch kernels pass", result["status"] == "passed", brief(result))
    again = smoke(first, ["triton_kernel"], {"TRITON_CACHE_DIR": os.path.join(WORK, "triton")})
    origins = [result["by_name"]["triton_kernel"]["origin"], again["by_name"]["triton_kernel"]["origin"]]
    check("Triton compiles once", origins == ["compiled", "cache"], origins)
    cpu = module("gpu_smoke", {"environment": first, "mode": "cpu", "kernels": TORCH_KERNELS})
    check("the CPU mode passes nothing", {e["status"] for e in cpu["kernels"]} == {"not_run"}, cpu["status"])
    other = module("gpu_smoke", {"environment": first, "kernels": ["torch_matmul"], "capability": "1.0"})
    check("another capability is refused", other["kernels"][0]["reason"] == "wrong_device", other["msg"])
    hidden = smoke(first, ["torch_matmul"], {"CUDA_VISIBLE_DEVICES": ""})
    check("no visible GPU is not_run", hidden["kernels"][0]["reason"] == "no_gpu", hidden["msg"])


def check_flashinfer(first: str, second: str) -> None:
    cache = {"FLASHINFER_WORKSPACE_BASE": os.path.join(WORK, "cache")}
    cold = smoke(first, FLASHINFER_KERNELS, cache)
    figures["cold"] = cold["kernels"]
    check("the FlashInfer kernels pass", cold["status"] == "passed", brief(cold))
    check("cold, they are compiled", {e["origin"] for e in cold["kernels"]} == {"compiled"}, brief(cold))
    warm = smoke(first, FLASHINFER_KERNELS, cache)
    figures["warm"] = warm["kernels"]
    check("again, they come from the cache", {e["origin"] for e in warm["kernels"]} == {"cache"}, brief(warm))
    check("the inputs were other ones", cold["seed"] != warm["seed"], [cold["seed"], warm["seed"]])

    path = os.path.join(WORK, "kernels.tar.xz")
    started = time.monotonic()
    packed = module("kernel_pack", {"environment": first, "path": path, "state": "packed", "env": cache})
    figures["pack"] = {
        "seconds": round(time.monotonic() - started, 1),
        "bytes": os.path.getsize(path) if os.path.exists(path) else 0,
        "manifest": packed.get("manifest"),
    }
    check("the modules are packed", packed.get("changed"), figures["pack"]["bytes"] or packed.get("msg"))
    same = module("kernel_pack", {"environment": first, "path": path, "state": "packed", "env": cache})
    check("packing again changes nothing", same.get("changed") is False, same.get("sha256"))
    place = {"environment": second, "path": path, "state": "placed"}
    refused = module("kernel_pack", {**place, "architecture": "75"})
    check("a pack of another architecture is refused", refused.get("failed"), refused.get("msg"))
    dry = module("kernel_pack", place, "--check")
    check("check mode says what it would place", dry.get("changed") and dry["written"], dry.get("written"))

    ninja = os.path.join(second, "bin", "ninja")
    if os.path.lexists(ninja):
        os.unlink(ninja)
    bare = {**NO_COMPILER, "FLASHINFER_WORKSPACE_BASE": os.path.join(WORK, "empty")}
    without = smoke(second, ["flashinfer_sampling"], bare)
    check("no compiler, no pack: told", without["kernels"][0]["reason"] == "compile_error", without["msg"][:300])
    told = module("flashinfer_info", {"environment": second, "env": bare})
    check("flashinfer_info tells it before", told["compiler"]["missing"] and told["problems"], told["problems"])
    placed = module("kernel_pack", place)
    check("the pack is placed", placed.get("changed"), placed.get("written") or placed.get("msg"))
    again = module("kernel_pack", place)
    check("placing again changes nothing", again.get("changed") is False, again.get("written"))
    result = smoke(second, FLASHINFER_KERNELS, bare)
    figures["packed"] = result["kernels"]
    check("the packed kernels pass with no compiler", result["status"] == "passed", brief(result))
    check("they come from the pack", {e["origin"] for e in result["kernels"]} == {"pack"}, brief(result))
    slowest = max((e["first_call_seconds"] or 999) for e in result["kernels"])
    check("first call under 2 s", slowest < 2, slowest)
    told = module("flashinfer_info", {"environment": second, "env": bare})
    check("flashinfer_info knows the pack is enough", not told["problems"], told["problems"] or told["remarks"])


def check_failures(first: str) -> None:
    """A kernel that is wrong fails the task and says how; the next one is run all the same."""
    for sabotage, reason in {
        "one_row": "wrong_result",
        "nan": "nan",
        "unwritten": "unwritten",
        "wrong_device": "wrong_device",
        "hang": "timeout",
        "crash": "crash",
        "lost_context": "crash",
        "allocate": "out_of_memory",
    }.items():
        env = {"PYTHONPATH": os.path.join(REPOSITORY, "tests/unit/fixtures/gpu/sabotage"), "SABOTAGE": sabotage}
        result = smoke(first, ["torch_matmul", "torch_attention"], env, timeout=30)
        found = [result["by_name"][name] for name in ("torch_matmul", "torch_attention")]
        good = result.get("failed") and found[0]["reason"] == reason and found[1]["status"] == "passed"
        check(
            f"{sabotage} is told as {reason}", good, [found[0]["reason"], found[1]["status"], found[0]["message"][:150]]
        )


def table() -> str:
    lines = ["| kernel | where from | first call, s | median, ms | error | tolerance |", "|---|---|---|---|---|---|"]
    for room in ("torch", "cold", "warm", "packed"):
        for entry in figures.get(room, []):
            keys = ("name", "origin", "first_call_seconds", "median_ms", "error", "tolerance")
            values = [f"{entry[key]:.4g}" if isinstance(entry[key], float) else str(entry[key]) for key in keys]
            lines.append(f"| {' | '.join(values)} |")
    return "\n".join(lines)


def report(out: str, seconds: float) -> None:
    info = figures.get("info", {})
    gpus = (info.get("gpu") or {}).get("gpus") or [{}]
    passed = sum(one["passed"] for one in checks)
    lines = [
        f"{datetime.date.today().isoformat()}, {gpus[0].get('name')}, driver {(info.get('gpu') or {}).get('driver')}, "
        f"PyTorch {(info.get('torch') or {}).get('version')}, nvcc {(info.get('compiler') or {}).get('nvcc_version')}, "
        f"FlashInfer {(info.get('flashinfer') or {}).get('version')}, {os.cpu_count()} cores.",
        "",
        "Command: `python3 tests/gpu/run.py WHEELS OUT`",
        "",
        table(),
        "",
        f"The pack: {(figures.get('pack') or {}).get('bytes')} bytes. Checks: {passed} of {len(checks)} passed "
        f"in {seconds:.0f} s.",
        "",
        *[f"- {'passed' if one['passed'] else 'FAILED'}: {one['check']}" for one in checks],
        "",
    ]
    with open(os.path.join(out, "results.md"), "w", encoding="utf-8") as file:
        file.write("\n".join(lines))
    with open(os.path.join(out, "results.json"), "w", encoding="utf-8") as file:
        json.dump({"figures": figures, "checks": checks, "seconds": round(seconds)}, file, indent=1, default=str)
    print("\n".join(lines))
    print(f"{passed} passed, {len(checks) - passed} failed")


def main() -> int:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    started = time.monotonic()
    wheels, out = sys.argv[1:]
    try:
        first, second = prepare(wheels)
        for step in (check_torch, check_failures):
            step(first)
            report(out, time.monotonic() - started)  # what is known so far outlives a time limit on the whole call
        check_flashinfer(first, second)
    except Exception as error:
        check("the run came to its end", False, f"{type(error).__name__}: {error}")
    report(out, time.monotonic() - started)
    return 0 if all(one["passed"] for one in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
