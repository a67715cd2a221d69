# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blocks and withdrawn warnings: what goes, what stays, and that undoing brings every byte back."""

from __future__ import annotations

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import managed_blocks
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.managed_blocks import HASH, MARKDOWN

WARNING = "DO NOT install FlashInfer"

TEXTS = [
    "",
    "one line without an end",
    "a line\n",
    "a line\n\n",
    "\n",
    "a\r\nb\r\n",
    f"{WARNING}",
    f"# Title\n\n{WARNING}, it breaks\nthe pipeline.\n\nThe next paragraph.\n",
    f"a\n\n{WARNING}\r\n\r\nb\r\n",
    "bytes that are no UTF-8: \udcff\n",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("comment", [MARKDOWN, HASH])
def test_there_and_back(text, comment):
    once = managed_blocks.documented(text, "the body\nof two lines", comment)
    assert "the body" in once
    assert WARNING not in once
    assert managed_blocks.documented(once, "the body\nof two lines", comment) == once
    other = managed_blocks.documented(once, "another body", comment)
    assert "the body" not in other
    assert managed_blocks.undocumented(other, comment) == text


def test_a_file_that_was_made_goes_again_unless_somebody_wrote_into_it():
    made = managed_blocks.documented(None, "body", MARKDOWN)
    assert managed_blocks.undocumented(made, MARKDOWN) is None
    assert managed_blocks.undocumented(made + "mine\n", MARKDOWN) == "mine\n"
    assert managed_blocks.undocumented(managed_blocks.documented("", "body", MARKDOWN), MARKDOWN) == ""


def test_what_was_written_around_the_block_meanwhile_stays():
    once = managed_blocks.documented("a\n", "body", MARKDOWN)
    assert managed_blocks.undocumented("before\n" + once + "after\n", MARKDOWN) == "before\na\nafter\n"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"a\n- {WARNING}\n  because\n  - of this\n- b\n", "a\n@\n- b\n"),
        (f"| a | b |\n| x | {WARNING} |\n| y | z |\n", "| a | b |\n@\n| y | z |\n"),
        (f"## {WARNING}\n\nIt breaks.\n\n### Details\n\nHere.\n\n## Next\n", "@\n## Next\n"),
        (f"```sh\na\n# {WARNING}\nb\n```\n", "```sh\na\n@\nb\n```\n"),
        (f"> [!WARNING]\n> {WARNING}\n\nb\n", "@\n\nb\n"),
        ("a\n\n**Do not\ninstall `FlashInfer`**, ever.\nReally.\n\nb\n", "a\n\n@\n\nb\n"),
        ("do not install flashinfer-python\n", "@\n"),
        ("Do not install FlashInfer 0.2.5, it wants PyTorch 2.7.\n", None),
        ("do not install flashinfer-python==0.2.5\n", None),
        ("Install FlashInfer.\n\nDo not install xformers.\n", None),
    ],
)
def test_the_warning_goes_with_what_belongs_to_it_and_nothing_else(text, left):
    done = managed_blocks.withdraw(text, MARKDOWN)
    shown = "".join("@\n" if "withdrew a warning" in line else line for line in done.splitlines(keepends=True))
    assert shown == (text if left is None else left)
    assert managed_blocks.bring_back(done) == text


def test_inside_code_the_keeping_comment_is_one_of_the_code():
    done = managed_blocks.withdraw(f"```sh\n# {WARNING}\n```\n", MARKDOWN)
    assert done.splitlines()[1].startswith("# ocrfleet.gpu_stack withdrew")


@pytest.mark.parametrize("spoil", [("BEGIN ocr", "BEGUN ocr"), ("END ocr", "ENDE ocr"), ("line ends before", "lines")])
def test_edited_markers_are_refused(spoil):
    once = managed_blocks.documented("a\n", "body", MARKDOWN)
    with pytest.raises(managed_blocks.Spoilt, match="expected one block"):
        managed_blocks.documented(once.replace(*spoil), "body", MARKDOWN)


def test_a_second_block_is_refused():
    once = managed_blocks.documented("a\n", "body", MARKDOWN)
    with pytest.raises(managed_blocks.Spoilt, match="found 2 and 2"):
        managed_blocks.undocumented(once + once, MARKDOWN)
