# Copyright (c) The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of compatible releases says what the data says."""

from __future__ import annotations

import json

import compatibility
import pytest

GOOD = {"ok": True, "seen": "x"}


def release(arguments=15, compiled=None, **changes):
    probe = {
        "imports": GOOD,
        "vllm_attention": GOOD,
        "vllm_sampler": GOOD,
        "plan_arguments": {"ok": True, "seen": arguments},
    }
    done = {"ok": True, "added": ["flashinfer-python 9"], "moved": [], "kept_out": [], "probe": probe}
    found = {"unprotected": {**done}, "pypi": {**done}, "constrained": {**done}, "source": {"ok": True, "probe": probe}}
    if compiled is not None:
        found["compiles"] = {"ok": compiled, "seen": "nvcc 13.0: x"}
    return {**found, **changes}


REFUSED = {"ok": False, "added": [], "moved": [], "reason": "it wants torch 2.4.1"}


@pytest.mark.parametrize(
    ("found", "word", "why"),
    [
        (release(), "fits", "by pypi; its plan takes the 15 arguments"),
        (release(arguments=19), "sampler only", "takes 19 arguments, vllm passes 15"),
        (release(compiled=False), "false success", "its kernels do not compile"),
        (
            release(
                pypi=REFUSED,
                constrained={**release()["constrained"], "unmet": ["apache-tvm-ffi==0.1.0b15: unavailable"]},
            ),
            "not sound",
            "apache-tvm-ffi==0.1.0b15: unavailable",
        ),
        (
            release(pypi=REFUSED, constrained=REFUSED, source={"ok": False, "reason": "no build"}),
            "no",
            "it wants torch 2.4.1",
        ),
    ],
)
def test_the_verdict_on_a_release(found, word, why):
    said = compatibility.verdict(found)
    assert said[0] == word
    assert why in said[1]


def test_the_page_names_what_fits_and_what_torch_would_do():
    moved = {**release()["unprotected"], "moved": ["torch 2.8.0 -> 2.4.1"], "added": ["cuda-bindings 13.5.0"]}
    data = {
        "date": "2026-01-01",
        "python": "3.11",
        "uv": "1",
        "releases": {"0.3.1": release(), "0.9": release(19, unprotected=moved)},
    }
    page = compatibility.render(data)
    assert "these releases fit: **0.3.1**" in page
    row = next(line for line in page.splitlines() if line.startswith("| 0.9 | installs"))
    assert "torch 2.8.0 -> 2.4.1" in row
    assert "cuda-bindings 13.5.0" in row


@pytest.mark.skipif(not compatibility.DATA.exists(), reason="docs/compatibility.json is not made yet")
def test_the_page_is_what_the_data_says():
    data = json.loads(compatibility.DATA.read_text(encoding="utf-8"))
    assert compatibility.PAGE.read_text(encoding="utf-8") == compatibility.render(data), (
        "run tools/compatibility.py page"
    )
    assert len(data["releases"]) >= 10
