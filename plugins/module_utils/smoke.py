# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run `gpu_kernels` in an environment's Python, in as many processes as it takes, and read what it found."""

from __future__ import annotations

import json
import os

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    commands,
    gpu_kernels,
    programs,
    staging,
)
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.flashinfer_install import GB_PER_JOB

ENTRY: dict = {
    "reason": "",
    "message": "",
    "cpu_status": None,
    "shapes": {},
    "error": None,
    "tolerance": None,
    "tolerance_source": None,
    "first_call_seconds": None,
    "median_ms": None,
    "origin": "unknown",
    "modules": [],
}


# What to do about each reason why a kernel failed.
_WRONG = (
    "do not serve with it: repeat it with the same seed, then compile anew (remove FlashInfer's cache, or the pack) "
    "and look for memory errors of the GPU (nvidia-smi -q -d ECC, dmesg)"
)
ADVICE = {
    "wrong_result": _WRONG,
    "nan": _WRONG,
    "unwritten": _WRONG,
    "wrong_device": "choose the GPU by CUDA_VISIBLE_DEVICES, or install a PyTorch that is built for it",
    "timeout": "raise timeout if it was compiling; else see dmesg for Xid errors of the GPU",
    "out_of_memory": "end the other users of the GPU that nvidia-smi names, or use one with more memory",
    "compile_error": "see what flashinfer_info says of the compiler; mend that, or place a kernel pack. Where one "
    f"found no memory or was killed, let fewer run at once: each takes {GB_PER_JOB} GB of the host's (MAX_JOBS in env)",
    "import_error": "see the problems that flashinfer_info names, and reinstall the package that does not load",
    "crash": "see the host's kernel log (dmesg) for Xid errors or the out-of-memory killer; run this kernel alone",
    "error": "see docs/compatibility.md whether this FlashInfer fits; run this kernel alone with the same seed",
}


def read_events(path: str) -> list[dict]:
    """The events that were written whole; a process that was killed may have left half a line."""
    events = []
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                try:
                    events.append(json.loads(line))
                except ValueError:
                    continue
    except OSError:
        pass
    return events


def attempt(
    stage: staging.Stage, request: dict, folder: str, timeout: int, env: dict[str, str]
) -> tuple[list[dict], commands.Result]:
    """Run the kernels of `request` in one process."""
    events, asked = (os.path.join(folder, name) for name in ("events.jsonl", "request.json"))
    if os.path.exists(events):
        os.unlink(events)
    with open(asked, "w", encoding="utf-8") as file:
        json.dump({**request, "timeout": timeout, "events": events}, file)
    # The program keeps each step's time limit itself; this one is for the case that it cannot.
    limit = timeout * (len(request["kernels"]) + 1) + 60
    program = programs.written(gpu_kernels, folder)
    result = stage.run([stage.python, program, asked], timeout=limit, env=env, cwd=folder)
    return read_events(events), result


def how_it_ended(events: list[dict], result: commands.Result, timeout: int) -> dict:
    """The finding for a kernel, or a start, that the process did not outlive."""
    if result.timed_out or any(event["event"] == "timeout" for event in events):
        message = f"expected an end within {timeout} s, found it still running"
        return {"status": "failed", "reason": "timeout", "message": message}
    message = f"expected a result, found none: {result.outcome()}"
    if result.rc == -9:
        message += "\nThe kernel's out-of-memory killer sends this signal: see the host's kernel log"
    return {"status": "failed", "reason": "crash", "message": message}


def read_attempt(
    kernels: list[str], events: list[dict], result: commands.Result, timeout: int
) -> tuple[dict[str, dict], dict, bool]:
    """The findings by kernel, the device, and whether the kernels without a finding are worth a new process."""
    found: dict[str, dict] = {}
    device: dict = {}
    begun = []
    for event in events:
        data = {key: value for key, value in event.items() if key not in ("event", "kernel")}
        if event["event"] == "device":
            device = data
        elif event["event"] == "start_failed":
            return {kernel: {"status": "failed", **data} for kernel in kernels}, device, False
        elif event["event"] == "begin":
            begun.append(event["kernel"])
        elif event["event"] == "result":
            found[event["kernel"]] = data
    no_gpu = device.get("no_gpu")
    if no_gpu:
        return (
            {kernel: {"status": "not_run", "reason": "no_gpu", "message": no_gpu} for kernel in kernels},
            device,
            False,
        )
    lost = [kernel for kernel in begun if kernel not in found]
    if lost:
        found[lost[0]] = how_it_ended(events, result, timeout)
        if not result.timed_out:
            return found, device, True
        # It did not even end itself: the GPU hangs, and each of the others would take the whole limit again.
        hangs = f"expected an end of {lost[0]}, found the GPU hanging in it; this kernel was not tried"
        untried = {"status": "failed", "reason": "timeout", "message": hangs}
        return {kernel: found.get(kernel, untried) for kernel in kernels}, device, False
    if not begun:
        return {kernel: how_it_ended(events, result, timeout) for kernel in kernels}, device, False
    return found, device, True


def as_cpu(entry: dict) -> dict:
    """What ran on a CPU is never passed: it says nothing about a GPU."""
    if entry["status"] == "passed":
        message = "right on the CPU; not run on a GPU"
        return {**entry, "status": "not_run", "reason": "cpu_mode", "message": message, "cpu_status": "passed"}
    return {**entry, "cpu_status": entry["status"]}


def advised(finding: dict) -> dict:
    """A finding, whose message says also what to do where it is a failure."""
    if finding["status"] != "failed":
        return finding
    return {**finding, "message": f"{finding['message']}; {ADVICE[finding['reason']]}"}


def run_all(run, request: dict, timeout: int) -> tuple[list[dict], dict, int, list[list[str]]]:  # type: ignore[no-untyped-def]
    """Run every kernel, in as many processes as it takes.

    `run(request)` runs one process and returns its events and result.
    """
    mode = request["mode"]
    found: dict[str, dict] = {}
    if mode == "cpu":
        message = "has no CPU form; not run on a GPU"
        gpu_only = [kernel for kernel in request["kernels"] if kernel not in gpu_kernels.ON_CPU]
        found = {kernel: {"status": "not_run", "reason": "cpu_mode", "message": message} for kernel in gpu_only}
    device: dict = {}
    argvs: list[list[str]] = []
    again = True
    while again:
        pending = [kernel for kernel in request["kernels"] if kernel not in found]
        if not pending:
            break
        events, result = run({**request, "kernels": pending})
        argvs.append(result.argv)
        findings, device, again = read_attempt(pending, events, result, timeout)
        if mode == "cpu":
            findings = {kernel: as_cpu(finding) for kernel, finding in findings.items()}
        found.update(findings)
    about = {"mode": mode, "device": device.get("device", ""), "capability": device.get("capability", "")}
    entries = [{"name": kernel, **ENTRY, **about, **advised(found[kernel])} for kernel in request["kernels"]]
    return entries, device, len(argvs), argvs


def overall(entries: list[dict]) -> str:
    statuses = {entry["status"] for entry in entries}
    if "failed" in statuses:
        return "failed"
    return "passed" if statuses == {"passed"} else "not_run"


def summary(entries: list[dict]) -> str:
    """One line for the operator: the failures where there are any, else how many passed, and why others did not run."""
    failed = [
        f"{entry['name']}: {entry['reason']}, {entry['message']}" for entry in entries if entry["status"] == "failed"
    ]
    if failed:
        return f"{len(failed)} of {len(entries)} kernels failed. " + "; ".join(failed)
    not_run: dict[str, list[str]] = {}
    for entry in entries:
        if entry["status"] == "not_run":
            not_run.setdefault(entry["message"], []).append(entry["name"])
    passed = sum(entry["status"] == "passed" for entry in entries)
    told = [f"{', '.join(names)}: {message}" for message, names in not_run.items()]
    return ". ".join([f"{passed} of {len(entries)} kernels passed on a GPU", *told])
