# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's benchmark in one line: the level nearest to the work that is about FlashInfer comes first."""

from __future__ import annotations

from typing import Any

import pytest

from ocrfleet.measured import sentence


def level(*verdicts: tuple[str, float], **more: Any) -> dict[str, Any]:
    rows = [{"name": "a", "verdict": verdict, "speedup": speedup} for verdict, speedup in verdicts]
    return {"status": "measured", "reason": "", "comparisons": rows, **more}


EQUAL = ("no difference found", 1.0)
NO_GPU = {"status": "not_run", "reason": "this host has no NVIDIA GPU", "comparisons": []}
FAILED = {"status": "failed", "reason": "2 of 4 pages were not read", "comparisons": []}


@pytest.mark.parametrize(
    ("benchmark", "said"),
    [
        ({}, ""),
        (None, ""),
        ({"kernels": level(EQUAL), "documents": level(EQUAL)}, "documents: 1 no difference found; mean speed-up 1.00"),
        (
            {"documents": level(EQUAL, ("faster", 1.21), ("slower", 0.9), EQUAL)},
            "documents: 1 faster, 1 slower, 2 no difference found; mean speed-up 1.02",
        ),
        (
            {"documents": level(("faster", 2.0), server="http://a/v1"), "server": level(EQUAL)},
            "server: 1 no difference found; mean speed-up 1.00",
        ),
        (
            {"documents": level(("faster", 2.0), server="http://a/v1"), "server": NO_GPU},
            "documents: 1 faster; mean speed-up 2.00 (read by a server: says nothing of FlashInfer)",
        ),
        (
            {"documents": level(EQUAL, note="both sides used Flash Attention")},
            "documents: 1 no difference found; mean speed-up 1.00 (both sides used Flash Attention)",
        ),
        ({"kernels": NO_GPU, "documents": FAILED}, "documents: failed: 2 of 4 pages were not read"),
        ({"kernels": NO_GPU, "server": NO_GPU}, "server: not run: this host has no NVIDIA GPU"),
        ({"documents": FAILED, "kernels": level(EQUAL)}, "kernels: 1 no difference found; mean speed-up 1.00"),
        ({"documents": {"status": "measured", "comparisons": []}}, "documents: no figures"),
        ("nothing", "its benchmark cannot be read"),
        ({"documents": []}, "its benchmark cannot be read"),
        ({"documents": level(("faster", "fast"))}, "its benchmark cannot be read"),
        ({"documents": level(("faster", -1))}, "its benchmark cannot be read"),
        ({"documents": level(("faster", 10**400))}, "its benchmark cannot be read"),
        ({"documents": level(("faster", float("nan")))}, "its benchmark cannot be read"),
        ({"documents": level(("faster", float("inf")))}, "its benchmark cannot be read"),
    ],
)
def test_a_benchmark_in_one_line(benchmark: Any, said: str) -> None:
    assert sentence({"benchmark": benchmark}) == said


def test_a_host_without_a_benchmark_has_none() -> None:
    assert sentence({}) == ""
