# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
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


def release(misfit=None, problem="", kernels=None, **changes):
    calls = [{"module": misfit, "call": "plan", "problem": "too many"}] if misfit else []
    seen = {"flashinfer": {"version": "1", "problem": problem}, "calls": calls, "vllm": {}}
    if kernels is not None:
        seen["kernels"] = {"problem": kernels, "loads": not kernels, "seconds": 7}
    return {"pypi": PLAN, "constrained": PLAN, "install_problem": "", "nvcc": "12.8", "probe": seen, **changes}


REFUSED = {**PLAN, "problem": "Refused: CUDA 13"}
UNMET = {"pypi": REFUSED, "constrained": {**REFUSED, "unmet": ["tvm==1 (unavailable)"]}, "instead": ["tvm 2"]}


@pytest.mark.parametrize(
    ("found", "word", "why"),
    [
        (release(), "fits", "every call"),
        (release(ATTENTION), "sampler only", "plan: too many"),
        (release(SAMPLER), "attention only", "plan: too many"),
        (release(problem="ImportError: x"), "does not import", "ImportError: x"),
        (release(install_problem="no compiler"), "does not install", "no compiler"),
        (release(kernels=""), "fits", "every call"),
        (release(kernels="x.h(1): error: no"), "does not compile", "x.h(1): error: no"),
        # The compiler's fault as well as the release's.
        (release(kernels="x.h(1): error: no", nvcc="13.0"), "fits", "every call"),
        (
            release(**UNMET, kernels=""),
            "refused",
            "; with tvm 2 in its place, it imports, which proves nothing; nor does",
        ),
        (
            release(**{**UNMET, "instead": []}),
            "refused",
            "tvm==1 (unavailable); without it, it imports, which proves nothing",
        ),
        (
            release(**UNMET, kernels="x.h(1): error: no"),
            "refused",
            "it imports, and `sampling` does not compile: x.h(1)",
        ),
        (
            release(**UNMET, problem="ImportError: x"),
            "refused",
            "with tvm 2 in its place, it does not import: ImportError: x",
        ),
        (
            release(**UNMET, install_problem="no compiler"),
            "refused",
            "; all the same, it does not install: no compiler",
        ),
        (release(pypi=REFUSED, constrained=PLAN), "fits", "every call"),
    ],
)
def test_the_verdict_on_a_release(found, word, why):
    said = compatibility.verdict(found)
    assert said[0] == word
    assert why in said[1]


@pytest.mark.parametrize(
    ("found", "pypi", "source", "constrained"),
    [
        (release(source={"problem": ""}), "plans, 0 packages", "builds", "plans, 0 packages"),
        (
            release(**UNMET, source={"problem": ""}),
            "no: Refused: CUDA 13",
            "builds, and has no plan, as `pypi`",
            "refused: it",
        ),
        (release(source={"problem": "no compiler"}), "plans", "no: no compiler", "plans"),
    ],
)
def test_what_each_method_says_of_a_release(found, pypi, source, constrained):
    said = [compatibility.by_method(found, method) for method in ("pypi", "source", "constrained")]
    for text, expected in zip(said, (pypi, source, constrained)):
        assert text.startswith(expected)


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("RuntimeError\n/a/b.h(224): error: no member\n/a/c.h(1): error: x", "b.h(224): error: no member"),
        ("/a/b.cu:12:10: fatal error: curand.h: No such file", "b.cu:12:10: fatal error: curand.h: No such file"),
        ("/usr/bin/ld: cannot find -lcudart: No such file\ncollect2: error", "ld: cannot find -lcudart: No such file"),
    ],
)
def test_the_first_error_of_a_compiler_is_found(output, found):
    match = compatibility_probe.COMPILER_ERROR.search(output)
    assert match and match[0] == found


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


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "harmless at import"),
        ({"problem": "ImportError: x"}, "**not harmless**"),
        ({"replaces": ["cuda-bindings"]}, "**not harmless**: it overwrites"),
        ({"loaded": ["nvidia/cu13/lib/libcudart.so.13"]}, "**not harmless**: it is loaded"),
    ],
)
def test_what_a_package_of_another_cuda_does(changes, word):
    assert compatibility.harmless({"problem": "", "replaces": [], "loaded": [], **changes}) == word


def test_each_package_of_another_cuda_is_looked_at_once_at_its_newest():
    releases = {
        "0.5.0": {"unguarded": {**PLAN, "adds": ["cuda-bindings 13.9.0", "numpy 2.0.0"]}},
        "0.6.0": {"unguarded": {**PLAN, "adds": ["cuda-bindings 13.10.0", "nvidia-nvvm 13.1"]}},
    }
    assert compatibility.foreign_packages(releases) == {"cuda-bindings": "13.10.0", "nvidia-nvvm": "13.1"}


def test_a_measurement_is_made_once(tmp_path):
    made = []

    def measured(name):
        made.append(name)
        return {"name": name}

    kept = tmp_path / "folder" / "x.json"
    assert [compatibility.once(kept, measured, "a"), compatibility.once(kept, measured, "b")] == [{"name": "a"}] * 2
    assert made == ["a"]
