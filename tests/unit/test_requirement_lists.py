# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists of requirements stay installable: hashes where pip requires them, and no two versions of a package."""

from __future__ import annotations

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import requirement_lists

BODY = "# by hand: pip install flashinfer-python==0.3.1\nflashinfer-python==0.3.1\npynvml==13.0.1\n"
HASHES = {"flashinfer-python==0.3.1": ["sha256:aa", "sha256:bb"], "pynvml==13.0.1": ["sha256:cc"]}


@pytest.mark.parametrize("text", ["torch==2.8.0 \\\n    --hash=sha256:dd\n", "--require-hashes\ntorch==2.8.0\n"])
def test_where_pip_requires_hashes_each_pin_has_its_own(text):
    assert requirement_lists.fit(text, BODY, HASHES) == (
        "# by hand: pip install flashinfer-python==0.3.1\n"
        "flashinfer-python==0.3.1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "pynvml==13.0.1 \\\n    --hash=sha256:cc\n"
    )
    with pytest.raises(requirement_lists.Unfit, match="requires hashes.*has none of pynvml==13.0.1"):
        requirement_lists.fit(text, BODY, {**HASHES, "pynvml==13.0.1": []})


@pytest.mark.parametrize("text", ["", "torch==2.8.0\n", "# with --hash=sha256:dd it would be safer\ntorch==2.8.0\n"])
def test_elsewhere_there_are_none(text):
    assert requirement_lists.fit(text, BODY, HASHES) == BODY


@pytest.mark.parametrize(
    "line",
    [
        "flashinfer-python==0.2.5",
        "FlashInfer_Python == 0.2.5  # the old one",
        "flashinfer-python[cu12]===0.2.5",
        "flashinfer-python==0.2.*",
        "flashinfer-python @ https://index.example/flashinfer.whl",
        "flashinfer-python<0.3",
        "flashinfer-python>=0.5,<1",
        "flashinfer-python!=0.3.1",
        "flashinfer-python~=0.2.5",
        "flashinfer-python==0.2.5 \\\n    --hash=sha256:dd",
        "pynvml==12.0.0 ; python_version > '3'",
    ],
)
def test_a_line_that_asks_for_another_version_is_refused(line):
    with pytest.raises(
        requirement_lists.Unfit, match=r"^line 2 asks for .* verified is (flashinfer-python==0|pynvml==1)"
    ):
        requirement_lists.fit(f"torch==2.8.0\n{line}\n", BODY, HASHES)


@pytest.mark.parametrize(
    "line",
    [
        "flashinfer-python",
        "flashinfer-python==0.3.1",
        "flashinfer-python==0.3.1.0",
        "flashinfer-python==0.3.*",
        "flashinfer-python>=0.2,<1,!=0.3.0",
        "flashinfer-python~=0.3.0",
        "flashinfer-cubin==0.2.5",
        "# flashinfer-python==0.2.5",
        "-r other.txt",
        "torch @ https://index.example/torch.whl",
        "./wheels/flashinfer_python-0.2.5-py3-none-any.whl",
    ],
)
def test_a_line_that_allows_the_version_is_none_of_our_business(line):
    assert requirement_lists.fit(f"{line}\n", BODY, HASHES) == BODY


def test_a_label_counts_only_where_the_line_has_one():
    body = "flashinfer-jit-cache==0.5.3+cu128\n"
    assert requirement_lists.fit("flashinfer-jit-cache==0.5.3\n", body, {}) == body
    with pytest.raises(requirement_lists.Unfit):
        requirement_lists.fit("flashinfer-jit-cache==0.5.3+cu130\n", body, {})
