# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel level of the benchmark: FlashInfer's kernels, cold and warm, and beside what vllm uses without them."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import (
    kernel_timings,
    level_status,
    programs,
    smoke,
    staging,
)

ROUNDS = 4  # of one process: either side is first in half of them
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


def _timed(stage: staging.Stage, folder: str, env: dict[str, str], timeout: int) -> tuple[list[dict], str]:
    """What one process measured, one entry a comparison, and how it ended where that was before its end."""
    events, asked = (os.path.join(folder, name) for name in ("pairs.jsonl", "pairs.json"))
    if os.path.exists(events):
        os.unlink(events)
    with open(asked, "w", encoding="utf-8") as file:
        json.dump({"events": events, "rounds": ROUNDS, "seed": time.time_ns() % 2**32}, file)
    # As in smoke.attempt: the program beside gpu_kernels.py, which it imports.
    program = programs.written(kernel_timings, folder)
    result = stage.run([stage.python, program, asked], timeout=timeout, env=env, cwd=folder)
    said = smoke.read_events(events)
    entries = [
        {name: value for name, value in event.items() if name != "event"}
        for event in said
        if event["event"] == "comparison"
    ]
    ended = any(event["event"] == "end" for event in said)
    return entries, "" if ended else result.outcome(lines=5)


def _gathered(processes: list[list[dict]]) -> list[dict]:
    """One entry a comparison: a pair from each process, or the reason that one of them gave for having none."""
    gathered: dict[str, dict] = {}
    for entries in processes:
        for entry in entries:
            seen = gathered.setdefault(entry["name"], {**entry, "pairs": []})
            if entry.get("pairs"):
                seen["pairs"].append([statistics.geometric_mean(side) for side in zip(*entry["pairs"])])
            else:
                seen["reason"] = entry["reason"]
    return [
        {name: value for name, value in entry.items() if name != "pairs"} if entry.get("reason") else entry
        for entry in gathered.values()
    ]


def measure(
    stage: staging.Stage,
    folder: str,
    env: dict[str, str],
    *,
    processes: int,
    timeout: int,
    keep: Callable[[dict], None] = lambda _found: None,
) -> dict:
    """First calls of a first and of a second process, and the comparisons, each with its pairs or the reason for none.

    The first process is cold only where no earlier run, and no kernel pack, has left the kernels; `origin` says which.
    A kernel whose result is wrong fails the level: its speed says nothing. A pair is a process of its own, in which
    memory lies elsewhere; none begins after `timeout` seconds. `keep` gets what is known after each of them.
    """
    started = time.monotonic()
    first, device = _first_calls(stage, folder, env, timeout)
    if not device.get("capability"):
        status = "failed" if first[0]["status"] == "failed" else "not_run"
        return {"status": status, "reason": first[0]["message"], "comparisons": []}
    second, _device = _first_calls(stage, folder, env, timeout)
    wrong = [f"{call['name']}: {call['message']}" for call in [*first, *second] if call["status"] == "failed"]
    timed: list[list[dict]] = []

    def found() -> dict:
        return level_status.settled(
            {
                "status": "failed" if wrong else "measured",
                "reason": wrong[0] if wrong else "",
                "device": device,
                "first_calls": {"first process": first, "second process": second},
                "comparisons": _gathered(timed),
                "seconds": round(time.monotonic() - started, 1),
            }
        )

    for process in range(processes):
        if process > 0 and time.monotonic() - started > timeout:
            break
        entries, how_it_ended = _timed(stage, folder, env, timeout)
        timed.append(entries)
        if how_it_ended:
            wrong.append(how_it_ended)
            break
        keep(found())
    return found()
