# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Managed blocks: what they bring along, and that undoing brings every byte back."""

from __future__ import annotations

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import managed_blocks
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.document_comments import HASH, MARKDOWN, Spoilt

WARNING = "DO NOT install FlashInfer"

# In a list of requirements a warning is a comment.
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
    # Line ends of other kinds, alone and mixed.
    "a\r",
    "a\rb\r",
    "a\n\r",
    "\r",
    "a\r\nb\n",
    "a\r\nb\r",
    "a\nb\r\n",
    "a\n\r\n",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("comment", [MARKDOWN, HASH])
def test_there_and_back(text, comment):
    if comment is HASH:
        text = text.replace(WARNING, f"# {WARNING}")
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


@pytest.mark.parametrize("folders", [0, 1, 2])
def test_a_file_that_was_made_knows_how_many_folders_were_made_for_it(folders):
    made = managed_blocks.documented(None, "body", MARKDOWN, folders)
    assert managed_blocks.folders_made(made, MARKDOWN) == folders
    assert managed_blocks.folders_made(managed_blocks.documented(made, "other", MARKDOWN), MARKDOWN) == folders
    assert managed_blocks.undocumented(made, MARKDOWN) is None


def test_of_a_file_of_an_earlier_release_no_folder_is_known():
    made = managed_blocks.documented(None, "body", MARKDOWN, 2).replace(", folders made for it: 2", "")
    assert ": 0, file made for it)" in made
    assert managed_blocks.folders_made(made, MARKDOWN) == 0
    assert managed_blocks.undocumented(made, MARKDOWN) is None


def test_what_was_written_around_the_block_meanwhile_stays():
    once = managed_blocks.documented("a\n", "body", MARKDOWN)
    assert managed_blocks.undocumented("before\n" + once + "after\n", MARKDOWN) == "before\na\nafter\n"


@pytest.mark.parametrize(
    ("text", "edited", "after", "left"),
    [
        # The line ends of the block were all that stood between two lines.
        ("torch==2.8.0", None, "numpy==2.0\n", "torch==2.8.0\nnumpy==2.0\n"),
        ("torch==2.8.0\r\nvllm", None, "numpy==2.0\r\n", "torch==2.8.0\r\nvllm\r\nnumpy==2.0\r\n"),
        ("torch==2.8.0\n", None, "numpy==2.0\n", "torch==2.8.0\nnumpy==2.0\n"),
        ("torch==2.8.0\n\n", None, "numpy==2.0\n", "torch==2.8.0\n\nnumpy==2.0\n"),
        ("torch==2.8.0", None, "\nnumpy==2.0\n", "torch==2.8.0\n\nnumpy==2.0\n"),
        # Somebody took the empty line out: what is left is no longer known to be the block's.
        ("torch==2.8.0\n", "torch==2.8.0\n", "", "torch==2.8.0\n"),
        ("torch==2.8.0\n", "torch==2.8.0\n", "numpy==2.0\n", "torch==2.8.0\nnumpy==2.0\n"),
        ("torch==2.8.0", "torch==2.8.0\n", "numpy==2.0\n", "torch==2.8.0\nnumpy==2.0\n"),
        ("torch==2.8.0", "torch==2.8.0\nvllm\n\n", "", "torch==2.8.0\nvllm"),
        ("\n", "\n", "numpy==2.0\n", "\nnumpy==2.0\n"),
        ("\n", None, "numpy==2.0\n", "\nnumpy==2.0\n"),
    ],
)
@pytest.mark.parametrize("comment", [MARKDOWN, HASH])
def test_lines_around_the_block_are_never_joined(text, edited, after, left, comment):
    once = managed_blocks.documented(text, "body", comment)
    own = managed_blocks.extent(once, comment)
    before = once[: own.start] if edited is None else edited
    assert managed_blocks.undocumented(before + once[own.start : own.stop] + after, comment) == left


@pytest.mark.parametrize("spoil", [("BEGIN ocr", "BEGUN ocr"), ("END ocr", "ENDE ocr"), ("line ends before", "lines")])
def test_edited_markers_are_refused(spoil):
    once = managed_blocks.documented("a\n", "body", MARKDOWN)
    with pytest.raises(Spoilt, match="expected one block"):
        managed_blocks.documented(once.replace(*spoil), "body", MARKDOWN)


def test_a_second_block_is_refused():
    once = managed_blocks.documented("a\n", "body", MARKDOWN)
    with pytest.raises(Spoilt, match="found 2 and 2"):
        managed_blocks.undocumented(once + once, MARKDOWN)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\n\n```sh\npip install olmocr\n", 3),
        ("~~~\na\n```\n", 1),
        ("````\na\n```\n", 1),
        ("```\na\n```\n\n- ```\n  b", 5),
    ],
)
def test_behind_a_code_fence_that_is_not_closed_the_block_would_be_code(text, line):
    with pytest.raises(Spoilt, match=f"line {line} is not closed"):
        managed_blocks.documented(text, "body", MARKDOWN)
    assert "body" in managed_blocks.documented(text, "body", HASH)
    block = managed_blocks.documented("", "body", MARKDOWN)
    with pytest.raises(Spoilt, match=f"line {line} is not closed"):
        managed_blocks.documented(f"{text}\n{block}", "body", MARKDOWN)
    assert managed_blocks.undocumented(f"{text}\n{block}", MARKDOWN) == f"{text}\n"


@pytest.mark.parametrize("text", ["```sh\na\n```\n", "~~~\n```\n~~~\n", "```a``` b\n", "> ```\n> a\n\nb\n"])
def test_behind_a_closed_one_it_is_none(text):
    """The block itself may be followed by an open one."""
    done = managed_blocks.documented(text, "```sh\nbody\n```", MARKDOWN)
    assert managed_blocks.documented(done + "```\n", "```sh\nbody\n```", MARKDOWN) == done + "```\n"
