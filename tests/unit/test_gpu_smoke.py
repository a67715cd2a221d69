# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The failures of a kernel told apart, with a fake torch, and with the one of OCRFLEET_TEST_ENVIRONMENT if set."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    commands,
    gpu_kernels,
    placed_kernels,
    smoke,
    staging,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.modules import gpu_smoke


def gpu_smoke_reasons() -> list[str]:
    told = yaml.safe_load(gpu_smoke.RETURN)["kernels"]["contains"]["reason"]["description"]
    return re.findall(r"V\((\w+)\)", next(line for line in told if line.startswith("Failures are")))


FIXTURES = Path(__file__).parent / "fixtures" / "gpu"
ENVIRONMENT = os.environ.get("OCRFLEET_TEST_ENVIRONMENT", "")


def request(kernels: list[str], mode: str = "gpu", **more: object) -> dict:
    return {"kernels": kernels, "mode": mode, "seed": 7, "capability": None, "tolerance": None, **more}


class Stage(staging.Stage):
    """A stage whose Python is that of the tests."""

    @property
    def python(self) -> str:
        return sys.executable


FAKE = {"PYTHONPATH": str(FIXTURES / "fake_torch")}


def ran(
    stage: staging.Stage, folder: Path, asked: dict, timeout: int, env: dict[str, str]
) -> tuple[dict[str, dict], int]:
    entries, _device, processes, _argvs = smoke.run_all(
        lambda one: smoke.attempt(stage, one, str(folder), timeout, env), asked, timeout
    )
    return {entry["name"]: entry for entry in entries}, processes


def fake(tmp_path: Path, how: str, asked: dict, timeout: int = 3) -> tuple[dict[str, dict], int]:
    return ran(Stage(str(tmp_path)), tmp_path, asked, timeout, {**FAKE, "FAKE": how})


@pytest.mark.parametrize(
    ("how", "reason", "says"),
    [
        ("hang", "timeout", "expected an end within 3 s"),
        ("crash", "crash", "was ended by signal 6"),
        ("exit", "crash", "ended with exit code 0"),
        ("out_of_memory", "out_of_memory", "Tried to allocate 20.00 GiB"),
        ("lost_context", "crash", "an illegal memory access"),
        ("no_image", "wrong_device", "no kernel image is available"),
        ("something", "error", "ValueError: something"),
    ],
)
def test_one_kernel_lost_leaves_the_others(tmp_path: Path, how: str, reason: str, says: str) -> None:
    asked = request(["torch_matmul", "torch_attention"])
    found, processes = fake(tmp_path, f"torch_matmul={how},torch_attention=out_of_memory", asked)
    assert (found["torch_matmul"]["status"], found["torch_matmul"]["reason"]) == ("failed", reason)
    assert says in found["torch_matmul"]["message"]
    assert found["torch_attention"]["reason"] == "out_of_memory"
    assert found["torch_matmul"]["capability"] == "9.0"
    assert processes == (1 if reason in ("out_of_memory", "error") else 2)


@pytest.mark.parametrize(
    ("how", "more", "status", "reason", "says"),
    [
        ("no_gpu", {}, "not_run", "no_gpu", "expected a CUDA device that PyTorch can use, found none (Found"),
        ("import", {}, "failed", "import_error", "libcudart.so.12"),
        ("import_hang", {}, "failed", "timeout", "expected an end within 2 s"),
        ("", {"capability": "8.9"}, "failed", "wrong_device", "expected compute capability 8.9, found 9.0"),
    ],
)
def test_a_start_that_fails_is_told_for_every_kernel(
    tmp_path: Path, how: str, more: dict, status: str, reason: str, says: str
) -> None:
    found, processes = fake(tmp_path, how, request(list(gpu_kernels.KERNELS), **more), timeout=2)
    assert processes == 1
    assert list(found) == list(gpu_kernels.KERNELS)
    for entry in found.values():
        assert (entry["status"], entry["reason"]) == (status, reason)
        assert says in entry["message"]


def test_a_hang_ends_the_children_too(tmp_path: Path) -> None:
    """Compilers that FlashInfer started must not go on after the time limit."""
    mark = tmp_path / "child"
    (tmp_path / "torch.py").write_text(
        f"import subprocess, time\nsubprocess.Popen(['sh', '-c', 'sleep 3; touch {mark}'])\ntime.sleep(60)\n"
    )
    found, _ = ran(Stage(str(tmp_path)), tmp_path, request(["torch_matmul"]), 1, {"PYTHONPATH": str(tmp_path)})
    assert found["torch_matmul"]["reason"] == "timeout"
    commands.run(["sleep", "3.5"], timeout=10)
    assert not mark.exists()


def answer(events: list[dict], rc: int = 0) -> tuple[list[dict], commands.Result]:
    return events, commands.Result(["python"], rc, "", "", 1.0)


DEVICE = {"event": "device", "device": "NVIDIA L4", "capability": "8.9", "no_gpu": ""}


def test_a_cpu_result_is_never_passed() -> None:
    events = [
        {"event": "device", "device": "cpu", "no_gpu": ""},
        {"event": "begin", "kernel": "torch_matmul"},
        {"event": "result", "kernel": "torch_matmul", "status": "passed", "error": 0.001},
    ]
    asked = []

    def run(one: dict) -> tuple[list[dict], commands.Result]:
        asked.append(one["kernels"])
        return answer(events)

    entries, _device, _processes, _argvs = smoke.run_all(run, request(["torch_matmul", "flashinfer_decode"], "cpu"), 5)
    assert asked == [["torch_matmul"]]
    assert [(entry["status"], entry["reason"], entry["cpu_status"]) for entry in entries] == [
        ("not_run", "cpu_mode", "passed"),
        ("not_run", "cpu_mode", None),
    ]
    assert smoke.overall(entries) == "not_run"


def test_a_gpu_that_hangs_is_waited_for_once() -> None:
    """The process did not even end itself, so each kernel would take the outer limit, an hour and more, again."""

    def run(one: dict) -> tuple[list[dict], commands.Result]:
        begun = [DEVICE, {"event": "begin", "kernel": one["kernels"][0]}]
        return begun, commands.Result(["python"], -9, "", "", 60.0, timed_out=True)

    entries, _, processes, _ = smoke.run_all(run, request(["torch_matmul", "flashinfer_decode"]), 5)
    assert processes == 1
    assert [entry["reason"] for entry in entries] == ["timeout", "timeout"]
    assert "expected an end of torch_matmul, found the GPU hanging in it" in entries[1]["message"]


def test_the_out_of_memory_killer_is_named() -> None:
    events = [DEVICE, {"event": "begin", "kernel": "flashinfer_prefill"}]
    entries, _, processes, _ = smoke.run_all(lambda one: answer(events, -9), request(["flashinfer_prefill"]), 5)
    assert processes == 1
    assert entries[0]["reason"] == "crash"
    assert "out-of-memory killer" in entries[0]["message"]


@pytest.mark.parametrize("reason", gpu_smoke_reasons())
def test_every_failure_says_what_to_do(reason: str) -> None:
    """The reasons are those that the module's documentation lists."""
    events = [
        DEVICE,
        {"event": "begin", "kernel": "torch_matmul"},
        {
            "event": "result",
            "kernel": "torch_matmul",
            "status": "failed",
            "reason": reason,
            "message": "expected, found",
        },
    ]
    entries, _, _, _ = smoke.run_all(lambda one: answer(events), request(["torch_matmul"]), 5)
    assert entries[0]["message"] == f"expected, found; {smoke.ADVICE[reason]}"


def test_a_lost_process_says_what_was_expected() -> None:
    entries, _, _, _ = smoke.run_all(lambda one: answer([], -6), request(["torch_matmul"]), 5)
    assert entries[0]["message"].startswith("expected a result, found none: python was ended by signal 6")
    assert entries[0]["message"].endswith(smoke.ADVICE["crash"])


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["passed", "passed"], "passed"),
        (["passed", "not_run"], "not_run"),
        (["passed", "failed"], "failed"),
        (["not_run", "failed"], "failed"),
    ],
)
def test_overall(statuses: list[str], expected: str) -> None:
    assert smoke.overall([{"status": status} for status in statuses]) == expected


class OutOfMemoryError(RuntimeError):
    """Of the name that PyTorch's has."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("CUDA error: out of memory"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("CUDA error: device-side assert triggered"), "crash"),
        (ModuleNotFoundError("No module named 'flashinfer'"), "import_error"),
        (OSError("sampling.so: undefined symbol: _ZN3c104cuda"), "import_error"),
        (RuntimeError("Ninja build failed. Ninja output:\nFAILED: sampling.cuda.o"), "compile_error"),
        (FileNotFoundError(2, "No such file or directory", "/nonexistent/bin/nvcc"), "compile_error"),
        (FileNotFoundError(2, "No such file or directory", "ninja"), "compile_error"),
        (RuntimeError("Could not find nvcc and default cuda_home='/usr/local/cuda' doesn't exist"), "compile_error"),
        # The host's memory, which compilers use up: not the GPU's.
        (RuntimeError("cc1plus: out of memory allocating 65536 bytes after a total of 9 bytes"), "compile_error"),
        (RuntimeError("nvcc error : 'cicc' died due to signal 9 (Kill signal)"), "compile_error"),
        (RuntimeError("Ninja build failed. fork: Cannot allocate memory"), "compile_error"),
        (OutOfMemoryError("CUDA out of memory. Tried to compile with ninja."), "out_of_memory"),
        (TypeError("plan() missing 1 required positional argument: 'page_size'"), "error"),
    ],
)
def test_reason_of(error: Exception, reason: str) -> None:
    assert gpu_kernels.reason_of(error) == reason


def test_only_flashinfers_modules_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch lays out the extensions that it compiles in the same way; those are of no pack."""
    paths = {
        name: tmp_path / name / "one/one.so" for name in ("torch_extensions/py311_cu128", "a/cached_ops", "b/data/aot")
    }
    for path in paths.values():
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(4096))
    with contextlib.ExitStack() as stack:
        for path in paths.values():
            file = stack.enter_context(path.open("rb"))
            stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        assert list(gpu_kernels.loaded_modules()) == [str(paths["a/cached_ops"])]


@pytest.mark.parametrize(
    ("path", "written", "origin"),
    [
        ("/home/o/.cache/flashinfer/90/cached_ops/sampling/sampling.so", 99.0, "cache"),
        ("/home/o/.cache/flashinfer/90/cached_ops/sampling/sampling.so", 101.0, "compiled"),
        ("/env/lib/python3.11/site-packages/flashinfer_jit_cache/jit_cache/sampling/sampling.so", 1.0, "pack"),
    ],
)
def test_module_origin(path: str, written: float, origin: str) -> None:
    assert gpu_kernels.module_origin(path, written, started=100.5) == origin


def test_a_module_is_of_a_pack_where_the_manifest_beside_it_says_so(tmp_path: Path) -> None:
    module = tmp_path / "flashinfer/data/aot/sampling/sampling.so"
    module.parent.mkdir(parents=True)
    module.write_bytes(b"one")
    assert gpu_kernels.module_origin(str(module), 1.0, started=9.0) == "unlisted"
    entry = {"sha256": placed_kernels.digest(str(module))}
    (module.parents[1] / placed_kernels.MANIFEST).write_text(json.dumps({"modules": {"sampling": entry}}))
    assert gpu_kernels.module_origin(str(module), 1.0, started=9.0) == "pack"
    module.write_bytes(b"two")
    assert gpu_kernels.module_origin(str(module), 1.0, started=9.0) == "unlisted"
    assert gpu_kernels.overall_origin([{"origin": "pack"}, {"origin": "unlisted"}]) == "unlisted"


@pytest.mark.parametrize(
    ("kernel", "origin"),
    [("flashinfer_decode", "pack"), ("flashinfer_prefill", "pack"), ("flashinfer_sampling", "unknown")],
)
def test_what_was_loaded_before_is_the_origin_of_attention_alone(
    monkeypatch: pytest.MonkeyPatch, kernel: str, origin: str
) -> None:
    """Decode and prefill share a module, which is loaded once. A sampling that fails before it loads has none."""
    earlier = {"name": "batch_prefill_with_kv_cache", "path": "/aot/x.so", "origin": "pack"}
    monkeypatch.setattr(gpu_kernels.Origin, "_earlier", [earlier])
    monkeypatch.setattr(gpu_kernels, "loaded_modules", dict)
    modules = [] if origin == "unknown" else [earlier]
    assert gpu_kernels.Origin(kernel).figures() == {"origin": origin, "modules": modules}


def test_the_lengths_that_are_documented_are_those_that_are_run() -> None:
    told = " ".join(yaml.safe_load(gpu_smoke.DOCUMENTATION)["options"]["kernels"]["description"])
    sizes = gpu_kernels.SIZES["gpu"]
    decode = gpu_kernels.unequal_lengths(sizes["tokens"], sizes["batch"])
    first, second = gpu_kernels.unequal_lengths(sizes["tokens"], 2)
    assert f"{len(decode)} requests of {decode[0]:,} down to {decode[-1]:,} tokens" in told
    assert f"two requests of {first:,} and {second:,} tokens" in told


def test_a_compiler_that_ran_out_of_memory_is_told_about_its_jobs() -> None:
    assert "MAX_JOBS" in smoke.ADVICE["compile_error"]


def test_half_a_line_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"event": "begin", "kernel": "torch_matmul"}\n{"event": "resu')
    assert smoke.read_events(str(file)) == [{"event": "begin", "kernel": "torch_matmul"}]


needs_torch = pytest.mark.skipif(not ENVIRONMENT, reason="OCRFLEET_TEST_ENVIRONMENT names no environment with PyTorch")
TABLE = yaml.safe_load((FIXTURES / "sabotage/table.yml").read_text())


# In CI both run in the molecule scenario pypi, with the PyTorch that is installed there.
@needs_torch
@pytest.mark.parametrize("row", TABLE, ids=[row["sabotage"] or "whole" for row in TABLE])
def test_with_the_real_torch(tmp_path: Path, row: dict) -> None:
    env = {"PYTHONPATH": str(FIXTURES / "sabotage"), "SABOTAGE": row["sabotage"], "PYTHONDONTWRITEBYTECODE": "1"}
    asked = request(["torch_matmul", "torch_attention"], "cpu")
    found, processes = ran(staging.Stage(ENVIRONMENT), tmp_path, asked, 20, env)
    matmul = found["torch_matmul"]
    assert row["says"] in matmul["message"]
    assert (matmul["cpu_status"], matmul["reason"]) == ("failed" if row["sabotage"] else "passed", row["reason"])
    assert found["torch_attention"]["cpu_status"] == "passed"
    assert processes == (1 if row["one"] else 2)


@needs_torch
def test_what_the_kernels_are_judged_by() -> None:
    python, judgement = os.path.join(ENVIRONMENT, "bin/python"), FIXTURES / "judgement.py"
    argv = [python, "-B", str(judgement), os.path.dirname(gpu_kernels.__file__)]
    result = commands.run(argv, timeout=600)
    assert result.ok, result.outcome()


def test_what_is_returned_is_what_is_documented(tmp_path: Path) -> None:
    told = yaml.safe_load(gpu_smoke.RETURN)
    found, _processes = fake(tmp_path, "torch_matmul=something", request(["torch_matmul"]))
    assert told["kernels"]["contains"].keys() == found["torch_matmul"].keys()
    (events, _result) = smoke.attempt(Stage(str(tmp_path)), request([]), str(tmp_path), 5, FAKE)
    assert told["device"]["contains"].keys() == events[0].keys() - {"event"}
