# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import torch_values
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage
from made_environment import make_environment


def values(metadata, version, cuda, problem=None):
    return {"metadata": metadata, "version": version, "cuda": cuda, "problem": problem}


INDEX_WHEEL = values("2.8.0", "2.8.0+cu128", "12.8")  # as read from the package index's own wheel
LABELLED_WHEEL = values("2.8.0+cu128", "2.8.0+cu128", "12.8")
CPU_WHEEL = values("2.8.0+cpu", "2.8.0+cpu", None)


@pytest.mark.parametrize(
    ("found", "expected", "differences"),
    [
        (INDEX_WHEEL, "2.8.0+cu128", []),
        (LABELLED_WHEEL, "2.8.0+cu128", []),
        (INDEX_WHEEL, "2.8.0", []),
        (INDEX_WHEEL, ">=2.8,<2.9", []),
        (CPU_WHEEL, "2.8.0+cpu", []),
        (
            CPU_WHEEL,
            "2.8.0+cu128",
            [
                "torch.__version__ is 2.8.0+cpu, expected 2.8.0+cu128",
                "the wheel's metadata is 2.8.0+cpu, expected 2.8.0+cu128",
                "torch.version.cuda is None, expected 12.8",
            ],
        ),
        (values("2.8.0", "2.8.0+cu128", "13.0"), "2.8.0+cu128", ["torch.version.cuda is 13.0, expected 12.8"]),
        (values("2.8.0", "2.8.0", "12.8"), "2.8.0+cu128", ["torch.__version__ is 2.8.0, expected 2.8.0+cu128"]),
        (
            values("2.4.1", "2.4.1+cu121", "12.1"),
            ">=2.8,<2.9",
            [
                "torch.__version__ is 2.4.1+cu121, expected >=2.8,<2.9",
                "the wheel's metadata is 2.4.1, expected >=2.8,<2.9",
            ],
        ),
        # A half-done upgrade: the files of one version, the metadata of another.
        (
            values("2.4.1", "2.8.0+cu128", "12.8"),
            "2.8.0+cu128",
            ["the wheel's metadata is 2.4.1, expected 2.8.0+cu128"],
        ),
        (values(None, "2.8.0+cu128", "12.8"), "2.8.0", ["the wheel's metadata is missing, expected 2.8.0"]),
        (values(None, None, None, "torch is not installed"), "2.8.0", ["torch is not installed"]),
    ],
)
def test_the_three_values_must_agree(found, expected, differences):
    assert torch_values.mismatches(found, expected) == differences


@pytest.mark.parametrize("text", ["2.8.0+cu128", "2.8.0", ">=2.8,<2.9", "==2.8.*"])
def test_versions_and_specifiers_are_accepted(text):
    assert torch_values.check_expected(text) is None


@pytest.mark.parametrize("text", ["two", "2.8.0 cu128", "=>2.8"])
def test_anything_else_is_named(text):
    assert repr(text) in torch_values.check_expected(text)


@pytest.mark.parametrize(
    ("label", "cuda"), [("cu128", "12.8"), ("cu118", "11.8"), ("cu130", "13.0"), ("cpu", None), (None, None)]
)
def test_a_label_stands_for_a_cuda_version(label, cuda):
    assert torch_values.cuda_of_label(label) == cuda


@pytest.mark.parametrize(
    ("torch", "problem"),
    [
        ("raise ImportError('libcudart.so.12: cannot open shared object file')", "libcudart.so.12"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
        ("import os; os._exit(3)", "exit code 3"),
        ("import time; time.sleep(60)", "did not end within"),
    ],
)
def test_a_broken_torch_is_an_answer(tmp_path, torch, problem):
    tree = make_environment(tmp_path / "env")
    package = tree / "lib/python3.11/site-packages/torch/__init__.py"
    package.write_text(torch)
    # The interpreter is the system's; -I ignores PYTHONPATH, so the site folder is named by a pyvenv-less stub.
    python = tree / "bin/python"
    python.unlink()
    start = f"import sys; sys.path.insert(0, {str(package.parents[1])!r}); exec(sys.argv[1])"
    python.write_text(f'#!/bin/sh\nshift\nexec python3 -c "{start}" "$2"\n')
    python.chmod(0o755)
    found = torch_values.read(Stage(str(tree)), timeout=2)
    assert found["metadata"] == "2.8.0"
    assert found["version"] is None
    assert problem in found["problem"]


def test_a_missing_torch_is_told_as_such(tmp_path):
    tree = make_environment(tmp_path / "env")
    for path in sorted((tree / "lib/python3.11/site-packages").glob("torch*/*")):
        path.unlink()
    for path in (tree / "lib/python3.11/site-packages").glob("torch*"):
        path.rmdir()
    assert torch_values.read(Stage(str(tree)), timeout=20)["problem"] == "torch is not installed"
