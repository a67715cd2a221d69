# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a managed block into a text, and undo it to the byte.

Everything that undoing needs stands in the text itself: how many line ends the block brought with it, and whether the
file was made for it. So nothing else has to be kept, and a file that was edited elsewhere meanwhile keeps those edits.
"""

from __future__ import annotations

import re

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import withdrawn_warnings
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.document_comments import (
    MARKDOWN,
    NAME,
    Comment,
    Spoilt,
)

_EMPTY_LINE = re.compile(r"\n\r?\n\Z")


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _block(text: str, comment: Comment) -> re.Match | None:
    """The block with what it brought along: groups `before` (line ends, as `newline`), `made` (its file), `folders`."""
    made = r"(?P<made>, file made for it(?:, folders made for it: (?P<folders>\d+))?)?"
    note = rf"\(line ends before it: (?P<before>\d){made}\)"
    begin = comment.find(rf"BEGIN {re.escape(NAME)} {note}")
    end = comment.find(f"END {re.escape(NAME)}")
    begins = re.findall(rf"^{re.escape(comment.start)} BEGIN {re.escape(NAME)}\b", text, re.MULTILINE)
    ends = re.findall(rf"^{end}\r?$", text, re.MULTILINE)
    if not begins and not ends:
        return None
    found = re.search(rf"^{begin}(?P<newline>\r?\n)(?P<body>.*?)^{end}(?:\r?\n|\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None or len(begins) != 1 or len(ends) != 1:
        raise Spoilt(
            f"expected one block between the lines BEGIN {NAME} and END {NAME}, as they were written; "
            f"found {len(begins)} and {len(ends)} of them. Put them right, or take the block out by hand"
        )
    return found


def with_block(text: str | None, body: str, comment: Comment, folders: int = 0) -> str:
    """The text with the block renewed where it stands, or added at the end.

    None is a file that is to be made, with as many folders above it.
    """
    made, text = text is None, text or ""
    found = _block(text, comment)
    if found:
        newline = found["newline"]
        head = text[found.start() : found.start("body")]
        tail = text[found.end("body") : found.end()]
        return text[: found.start()] + head + newline.join([*body.splitlines(), ""]) + tail + text[found.end() :]
    newline = _line_end(text)
    missing = 0 if not text or _EMPTY_LINE.search(text) else 1 if text.endswith("\n") else 2
    note = f"line ends before it: {missing}"
    if made:
        note += ", file made for it" + (f", folders made for it: {folders}" if folders else "")
    lines = [comment(f"BEGIN {NAME} ({note})"), *body.splitlines(), comment(f"END {NAME}"), ""]
    return text + newline * missing + newline.join(lines)


def without_block(text: str, comment: Comment) -> str | None:
    """The text as it was before; None where the file was made for the block and holds nothing else."""
    found = _block(text, comment)
    if not found:
        return text
    before, after = text[: found.start()], text[found.end() :]
    brought = int(found["before"])
    # Where the empty line is gone somebody took it out, and no line end that is left is known to be the block's.
    if brought and _EMPTY_LINE.search(before):
        # The first of two ended the file's last line; what was written behind the block since needs it there. They
        # are as those of the block: behind a lone CR, which is the file's, an LF looks like CRLF.
        for _line_end_before in range(1 if after else brought):
            before = before.removesuffix(found["newline"])
    left = before + after
    return None if found["made"] and not left.strip() else left


def folders_made(text: str, comment: Comment) -> int:
    """How many folders above a file were made with it."""
    found = _block(text, comment)
    return int(found["folders"] or 0) if found else 0


def extent(text: str, comment: Comment) -> range:
    """The offsets of the block."""
    found = _block(text, comment)
    return range(found.start(), found.end()) if found else range(0)


def around(text: str, comment: Comment) -> str:
    """The text with empty lines in place of the block, so that each line keeps its number."""
    own = extent(text, comment)
    return text[: own.start] + "\n" * text.count("\n", own.start, own.stop) + text[own.stop :]


def documented(text: str | None, body: str, comment: Comment, folders: int = 0) -> str:
    """A file's text as it should be after a verified success. Raises Spoilt where the block would be code."""
    if text is not None:
        own = extent(text, comment)
        opened = withdrawn_warnings.open_fence(text[: own.start] if own else text) if comment is MARKDOWN else 0
        if opened:
            raise Spoilt(
                f"the code fence of line {opened} is not closed, and the block behind it would be shown as code. Close "
                "it, or move the block out of it"
            )
        text = withdrawn_warnings.withdraw(text, comment, own)
    return with_block(text, body, comment, folders)


def undocumented(text: str, comment: Comment) -> str | None:
    """A file's text as it was before; None where there was no file."""
    left = without_block(text, comment)
    return None if left is None else withdrawn_warnings.bring_back(left)
