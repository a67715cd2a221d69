# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel level of the benchmark: FlashInfer's kernels, cold and warm, and beside what vllm uses without them."""

from __future__ import annotations

import json
import os
import time

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    kernel_timings,
    level_status,
    programs,
    smoke,
    staging,
)

FLASHINFER = ["flashinfer_decode", "flashinfer_prefill", "flashinfer_sampling"]


def _first_calls(stage: staging.Stage, folder: str, env: dict[str, str], timeout: int) -> tuple[list[dict], dict]:
    request = {
        "kernels": FLASHINFER,
        "mode": "gpu",
        "seed": time.time_ns() % 2**32,
        "capability": None,
        "tolerance": None,
    }
    entries, device, _processes, _argvs = smoke.run_all(
        lambda asked: smoke.attempt(stage, asked, folder, timeout, env), request, timeout
    )
    kept = ("name", "status", "reason", "message", "first_call_seconds", "origin", "error")
    return [{name: entry[name] for name in kept} for entry in entries], device


def measure(stage: staging.Stage, folder: str, env: dict[str, str], *, rounds: int, timeout: int) -> dict:
    """First calls of a first and of a second process, and the comparisons, each with its pairs or the reason for none.

    The first process is cold only where no earlier run, and no kernel pack, has left the kernels; `origin` says which.
    A kernel whose result is wrong fails the level: its speed says nothing.
    """
    started = time.monotonic()
    first, device = _first_calls(stage, folder, env, timeout)
    if not device.get("capability"):
        status = "failed" if first[0]["status"] == "failed" else "not_run"
        return {"status": status, "reason": first[0]["message"], "comparisons": []}
    second, _device = _first_calls(stage, folder, env, timeout)
    events, asked = (os.path.join(folder, name) for name in ("pairs.jsonl", "pairs.json"))
    with open(asked, "w", encoding="utf-8") as file:
        json.dump({"events": events, "rounds": rounds, "seed": time.time_ns() % 2**32}, file)
    # As in smoke.attempt: the program beside gpu_kernels.py, which it imports.
    program = programs.written(kernel_timings, folder)
    result = stage.run([stage.python, program, asked], timeout=timeout, env=env, cwd=folder)
    said = smoke.read_events(events)
    comparisons = [
        {name: value for name, value in event.items() if name != "event"}
        for event in said
        if event["event"] == "comparison"
    ]
    wrong = [f"{call['name']}: {call['message']}" for call in [*first, *second] if call["status"] == "failed"]
    if not any(event["event"] == "end" for event in said):
        wrong.append(result.outcome(lines=5))
    return level_status.settled(
        {
            "status": "failed" if wrong else "measured",
            "reason": wrong[0] if wrong else "",
            "device": device,
            "first_calls": {"first process": first, "second process": second},
            "comparisons": comparisons,
            "seconds": round(time.monotonic() - started, 1),
        }
    )
