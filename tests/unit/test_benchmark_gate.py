# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gate lets through, and what it says where it does not."""

from __future__ import annotations

import re

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import benchmark_gate

NO_GPU = {"status": "not_run", "reason": "this host has no NVIDIA GPU", "comparisons": []}
FAILED = {"status": "failed", "reason": "candidate: 8 of 8 pages were not read", "comparisons": []}


def entry(low: float, high: float, name: str = "4 workers") -> dict:
    speedup = (low * high) ** 0.5
    return {"name": name, "status": "measured", "pairs": 5, "speedup": speedup, "low": low, "high": high}


def level(*entries: dict, **more: object) -> dict:
    return {"status": "measured", "reason": "", "comparisons": list(entries), **more}


FAST = level(entry(1.2, 1.4))
WRONG = {"name": "decode, batch 1", "status": "failed", "reason": "the two outputs differ by 0.5"}
FEW = {"name": "scanned, 1 worker", "status": "measured", "pairs": 2, "speedup": 1.3, "low": None, "high": None}


@pytest.mark.parametrize(
    ("levels", "min_speedup", "max_slowdown", "told"),
    [
        ({}, 0, 1, []),
        ({"documents": level(entry(0.5, 0.6))}, 0, 1, []),
        ({}, 1.05, 1, ["among benchmark_levels .* found none"]),
        (
            {"documents": NO_GPU},
            1.05,
            1,
            [r"level documents to be measured.*not run: this host has no NVIDIA GPU; mend"],
        ),
        # The least speed-up is one that is certain, over all comparisons.
        ({"documents": level(entry(1.06, 1.2))}, 1.05, 1, []),
        ({"documents": level(entry(1.02, 1.3))}, 1.05, 1, ["certainly 1.05 .* found 1.152 and certainly only 1.020"]),
        ({"documents": level(entry(0.7, 1.6))}, 1.05, 1, ["certainly only 0.700"]),
        ({"documents": level(entry(1.01, 1.2), entry(1.2, 1.4))}, 1.05, 1, []),
        ({"documents": level(entry(1.01, 1.2), entry(1.01, 1.4))}, 1.05, 1, [r"over 2 comparisons.*benchmark_repeats"]),
        # The largest slow-down is one that is possible, in any comparison.
        ({"documents": level(entry(0.97, 1.1))}, 0, 0.05, []),
        ({"documents": level(entry(0.94, 1.1))}, 0, 0.05, ["certainly 5.0% or less, found that 4 workers .* by 6.0%"]),
        ({"documents": level(entry(0.8, 0.9), entry(0.7, 1.6, "b"))}, 0, 0.05, ["4 workers .* by 20.0%", "b .* by 30"]),
        ({"documents": level(entry(0.8, 1.5))}, 1.05, 0.05, ["mean speed-up", "slow-down"]),
        # Pages that are not read are no speed.
        (
            {"documents": level({**entry(1.2, 1.3), "failed_pages": {"baseline": 1, "candidate": 2}})},
            *(1.05, 1, ["more pages unread than the baseline, found 2 against 1 for 4 workers"]),
        ),
        ({"documents": level({**entry(1.2, 1.3), "failed_pages": {"baseline": 1, "candidate": 1}})}, 1.05, 1, []),
        # Without an interval there is nothing to judge.
        ({"documents": level(FEW)}, 1.05, 1, ["at least 5 pairs .* found 2 pairs for scanned, 1 worker; set"]),
        ({"documents": level(FEW)}, 0, 0.02, ["at least 5 pairs"]),
        ({"documents": level()}, 1.05, 1, ["found no comparison"]),
        # The nearest level that was asked for counts, and no other comes in where that could not run.
        ({"documents": FAST, "server": level(entry(0.5, 0.6))}, 1.1, 0.1, []),
        ({"server": FAST, "kernels": NO_GPU}, 1.1, 0.1, []),
        ({"documents": FAST, "server": {**NO_GPU, "reason": "too little memory"}}, 1.1, 0.1, []),
        ({"documents": NO_GPU, "server": FAST}, 1.1, 0.1, ["level documents .* not run: this host has no"]),
        ({"server": NO_GPU, "kernels": FAST}, 0, 0.02, ["level server .* not run: .*, or leave it out"]),
        # What kernels take is not what vllm takes, which may not use them.
        ({"kernels": FAST}, 1.05, 1, ["expected documents or server among benchmark_levels .* found kernels"]),
        ({"kernels": FAST}, 0, 0.02, ["found kernels"]),
        ({"documents": FAST, "kernels": level(entry(0.5, 0.6))}, 0, 0.02, []),
        (
            {"server": level(entry(1.2, 1.3), note="both sides used PyTorch")},
            1.05,
            1,
            ["level server, found that both"],
        ),
        ({"documents": FAILED, "kernels": FAST}, 1.05, 0.02, ["level documents .* failed: candidate: 8 of 8 pages"]),
        ({"documents": FAST, "server": {**FAILED, "reason": "the engine ended"}}, 1.05, 1, ["server .* engine ended"]),
        ({"kernels": level(entry(1.2, 1.3), WRONG)}, 1.05, 1, ["decode, batch 1: the two outputs differ"]),
        # What failed is told without a gate, too.
        ({"documents": FAILED}, 0, 1, ["level documents .* failed"]),
        ({"kernels": {**FAILED, "comparisons": [WRONG, WRONG]}}, 0, 1, [r"outputs differ by 0.5 \(and 1 more\)"]),
        # What was sent elsewhere, the environment's FlashInfer had no part in.
        ({"documents": level(entry(1.2, 1.3), server="http://ocr/v1")}, 1.05, 1, ["sent to http://ocr/v1"]),
        ({"documents": level(entry(1.2, 1.3), stand_in="a fake"), "server": FAST}, 0, 0.02, ["sent to a fake"]),
        ({"documents": level(entry(1.2, 1.3), server="http://ocr/v1")}, 0, 1, []),
        # A gain in which FlashInfer had no part is none of its own; that it cost nothing can be told all the same.
        (
            {"documents": level(entry(1.2, 1.3), note="both sides used PyTorch")},
            1.05,
            1,
            ["found .* used PyTorch; leave"],
        ),
        ({"documents": level(entry(1.2, 1.3), note="both sides used PyTorch")}, 0, 0.02, []),
        (
            {"documents": level(entry(0.9, 1.3), note="both sides used PyTorch")},
            1.05,
            0.02,
            ["used PyTorch", "by 10.0%"],
        ),
        ({"documents": level(entry(1.2, 1.3), note="")}, 1.05, 1, []),
    ],
)
def test_the_gate(levels, min_speedup, max_slowdown, told):
    found = benchmark_gate.problems(levels, min_speedup, max_slowdown)
    assert len(found) == len(told), found
    for sentence, pattern in zip(found, told, strict=True):
        assert re.search(pattern, sentence), sentence


@pytest.mark.parametrize(("min_speedup", "max_slowdown"), [(1.1, 1), (0, 0.1)])
def test_what_is_just_met_is_met(min_speedup, max_slowdown):
    low = min_speedup or 1 - max_slowdown
    assert benchmark_gate.problems({"server": level(entry(low, 1.3))}, min_speedup, max_slowdown) == []


@pytest.mark.parametrize(
    ("min_speedup", "max_slowdown", "expected"), [(0, 1, False), (0.5, 1, True), (1, 1, True), (0, 0.99, True)]
)
def test_a_gate_is_set_by_either(min_speedup, max_slowdown, expected):
    assert benchmark_gate.is_set(min_speedup, max_slowdown) is expected


@pytest.mark.parametrize("bounds", [(float("nan"), 1), (0, float("nan"))])
def test_a_bound_that_is_no_number_is_refused(bounds):
    """It was no gate, or one that everything meets."""
    with pytest.raises(ValueError, match="expected a number"):
        benchmark_gate.is_set(*bounds)
    with pytest.raises(ValueError, match="expected a number"):
        benchmark_gate.judged({"documents": FAST}, *bounds)


def test_what_was_not_run_beside_what_was_does_not_count():
    waiting = {"name": "mixed", "status": "not_run", "reason": "no time", "low": None}
    assert benchmark_gate.problems({"documents": level(entry(1.2, 1.4), waiting)}, 1.1, 0.1) == []


def test_one_failure_is_told_alone():
    [said] = benchmark_gate.problems({"kernels": level(WRONG)}, 1.05, 1)
    assert said.endswith("found that it failed: decode, batch 1: the two outputs differ by 0.5; mend that first")
    [said] = benchmark_gate.problems({"kernels": {"status": "failed", "reason": "it broke"}}, 1.05, 1)
    assert said.endswith("found that it failed: it broke; mend that first")
    [said] = benchmark_gate.problems({"server": level({"name": "a", "status": "measured"})}, 1.05, 1)
    assert "at the level server, found 0 pairs for a; set" in said
