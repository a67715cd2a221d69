# Copyright (c) The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of FlashInfer releases says what the data says, and the data what the verdicts need."""

from __future__ import annotations

import ast
import json

import compatibility
import compatibility_probe
import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import flashinfer_install

PLAN = {"problem": "", "adds": [], "moves": [], "kept_out": [], "unmet": []}
ATTENTION, SAMPLER = compatibility_probe.ATTENTION, compatibility_probe.SAMPLER


def release(misfit=None, problem="", **changes):
    calls = [{"module": misfit, "call": "plan", "problem": "too many"}] if misfit else []
    seen = {"flashinfer": {"version": "1", "problem": problem}, "calls": calls, "vllm": {}}
    return {"pypi": PLAN, "install_problem": "", "probe": seen, **changes}


REFUSED = {**PLAN, "problem": "Refused: CUDA 13"}


@pytest.mark.parametrize(
    ("found", "word", "why"),
    [
        (release(), "fits", "every call"),
        (release(ATTENTION), "sampler only", "plan: too many"),
        (release(SAMPLER), "attention only", "plan: too many"),
        (release(problem="ImportError: x"), "does not import", "ImportError: x"),
        (release(install_problem="no compiler"), "does not install", "no compiler"),
        (
            release(pypi=REFUSED, constrained={**REFUSED, "unmet": ["tvm==1 (unavailable)"]}),
            "refused",
            "it needs tvm==1 (unavailable); it imports without, which proves nothing",
        ),
        (release(pypi=REFUSED, constrained=PLAN), "fits", "every call"),
    ],
)
def test_the_verdict_on_a_release(found, word, why):
    said = compatibility.verdict(found)
    assert said[0] == word
    assert why in said[1]


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("f(a, b)", ""),
        ("f(b, a)", "argument 1 is b, FlashInfer takes it for a"),
        ("f(a, b, c)", "too many positional arguments"),
        ("f(a, b, d=1)", "got an unexpected keyword argument 'd'"),
    ],
)
def test_a_call_is_held_against_a_signature(call, problem):
    def target(a, b):
        """Called by nobody."""

    found = ast.parse(call, mode="eval").body
    assert isinstance(found, ast.Call)
    assert compatibility_probe.misfit(found, target, bound=False) == problem


def test_what_the_modules_say_of_a_release_is_what_was_measured():
    data = json.loads(compatibility.DATA.read_text(encoding="utf-8"))
    for version, found in data["releases"].items():
        said = flashinfer_install.compatibility(data["baseline"]["vllm"], version)
        if said["attention"] == "works":
            assert compatibility.verdict(found)[0] == "fits", version
        if said["attention"] == "breaks":
            assert compatibility.verdict(found)[0] != "fits", version


def test_the_page_is_what_the_data_says():
    data = json.loads(compatibility.DATA.read_text(encoding="utf-8"))
    assert len(data["releases"]) >= 10
    assert tuple(data["releases"]) == compatibility.VERSIONS, "the command would measure others than the page shows"
    assert compatibility.PAGE.read_text(encoding="utf-8") == compatibility.render(data), (
        "run tools/compatibility.py page"
    )
