# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a managed block into a text, take a withdrawn warning out of it, and undo both to the byte.

Everything that undoing needs stands in the text itself: how many line ends the block brought with it, whether the
file was made for it, and the withdrawn lines, base64-coded in a comment where they stood. So nothing else has to be
kept, and a file that was edited elsewhere meanwhile keeps those edits.
"""

from __future__ import annotations

import base64
import itertools
import re
from dataclasses import dataclass

NAME = "ocrfleet.gpu_stack"

# A warning of one release ("do not install FlashInfer 0.2.5") stays true, and stays.
WARNING = re.compile(r"do\s+not\s+install\W+flashinfer(?!(?:-python)?\W{0,4}v?\d)", re.IGNORECASE)

_KEPT = f"{NAME} withdrew a warning here, and keeps it for the way back: "

_FENCE = re.compile(r"^\s*(```|~~~)")
_HEADING = re.compile(r"^(#{1,6})\s")
_ITEM = re.compile(r"^(\s*)(?:[-*+]|\d+[.)])\s+")


class Spoilt(Exception):
    """Markers that do not belong together: somebody edited them."""


@dataclass(frozen=True)
class Comment:
    """How a kind of file writes a comment of one line."""

    start: str
    end: str

    def __call__(self, text: str) -> str:
        return f"{self.start} {text}{self.end and ' ' + self.end}"

    def find(self, text: str) -> str:
        """A pattern for a comment whose text matches the pattern `text`."""
        return rf"{re.escape(self.start)} {text}{self.end and ' ' + re.escape(self.end)}"


MARKDOWN, HASH = Comment("<!--", "-->"), Comment("#", "")


def comment_of(path: str) -> Comment:
    return MARKDOWN if path.endswith(".md") else HASH


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _block(text: str, comment: Comment) -> re.Match | None:
    """The block with what it brought along: groups `before` (its line ends) and `made` (of a file made for it)."""
    note = r"\(line ends before it: (?P<before>\d)(?P<made>, file made for it)?\)"
    begin = comment.find(rf"BEGIN {re.escape(NAME)} {note}")
    end = comment.find(f"END {re.escape(NAME)}")
    begins = re.findall(rf"^{re.escape(comment.start)} BEGIN {re.escape(NAME)}\b", text, re.MULTILINE)
    ends = re.findall(rf"^{end}\r?$", text, re.MULTILINE)
    if not begins and not ends:
        return None
    found = re.search(rf"^{begin}\r?\n(?P<body>.*?)^{end}(?:\r?\n|\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None or len(begins) != 1 or len(ends) != 1:
        raise Spoilt(
            f"expected one block between the lines BEGIN {NAME} and END {NAME}, as they were written; "
            f"found {len(begins)} and {len(ends)} of them. Put them right, or take the block out by hand"
        )
    return found


def with_block(text: str | None, body: str, comment: Comment) -> str:
    """The text with the block renewed where it stands, or added at the end. None is a file that is to be made."""
    made, text = text is None, text or ""
    newline = _line_end(text)
    found = _block(text, comment)
    if found:
        head = text[found.start() : found.start("body")]
        tail = text[found.end("body") : found.end()]
        return text[: found.start()] + head + newline.join([*body.splitlines(), ""]) + tail + text[found.end() :]
    missing = 0 if not text or re.search(r"\n\r?\n\Z", text) else 1 if text.endswith("\n") else 2
    note = f"(line ends before it: {missing}{', file made for it' if made else ''})"
    lines = [comment(f"BEGIN {NAME} {note}"), *body.splitlines(), comment(f"END {NAME}"), ""]
    return text + newline * missing + newline.join(lines)


def without_block(text: str, comment: Comment) -> str | None:
    """The text as it was before; None where the file was made for the block and holds nothing else."""
    found = _block(text, comment)
    if not found:
        return text
    before = text[: found.start()]
    for _line_end_before in range(int(found["before"])):
        before = re.sub(r"\r?\n\Z", "", before)
    left = before + text[found.end() :]
    return None if found["made"] and not left.strip() else left


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _extent(lines: list[str], at: int, fenced: list[bool]) -> tuple[int, int]:
    """The lines that a warning at line `at` takes: a line of code, a row, a section, a list item or a paragraph."""
    if fenced[at] or lines[at].lstrip().startswith("|"):
        return at, at + 1
    heading = _HEADING.match(lines[at])
    if heading:
        end = at + 1
        while end < len(lines):
            other = None if fenced[end] else _HEADING.match(lines[end])
            if other and len(other[1]) <= len(heading[1]):
                break
            end += 1
        return at, end
    start = at
    while start > 0 and not _ITEM.match(lines[start]) and _continues(lines, start - 1, fenced):
        start -= 1
    item = _ITEM.match(lines[start])
    end = at + 1
    while end < len(lines) and _continues(lines, end, fenced):
        belongs = _indent(lines[end]) > _indent(lines[start]) if item else not _ITEM.match(lines[end])
        if not belongs:
            break
        end += 1
    return start, end


def _continues(lines: list[str], at: int, fenced: list[bool]) -> bool:
    """Whether the line belongs to the paragraph of its neighbour."""
    return bool(lines[at].strip(" \t\r\n>")) and not fenced[at] and not _HEADING.match(lines[at])


def _fenced(lines: list[str]) -> list[bool]:
    inside, result = False, []
    for line in lines:
        fence = bool(_FENCE.match(line))
        result.append(inside or fence)
        inside = inside != fence
    return result


def withdraw(text: str, comment: Comment) -> str:
    """The text with each warning replaced by a comment that keeps it."""
    block = _block(text, comment)
    own = range(block.start(), block.end()) if block else range(0)
    lines = text.splitlines(keepends=True)
    fenced = _fenced(lines) if comment is MARKDOWN else [True] * len(lines)
    starts = [0, *itertools.accumulate(len(line) for line in lines)]
    spans: dict[int, int] = {}
    for at, line in enumerate(lines):
        following = lines[at + 1] if at + 1 < len(lines) and not fenced[at] else ""
        found = WARNING.search(line + following)
        if found and found.start() < len(line) and starts[at] not in own:
            start, end = _extent(lines, at, fenced)
            spans[start] = max(end, spans.get(start, 0))
    kept: list[str] = []
    skip = 0
    for at, line in enumerate(lines):
        if at < skip:
            continue
        if at in spans:
            skip = spans[at]
            taken = "".join(lines[at:skip])
            coded = base64.b64encode(taken.encode("utf-8", "surrogateescape")).decode()
            # Inside code an HTML comment would be code.
            keeping = HASH if fenced[at] else comment
            line_end = re.search(r"(\r?\n)?\Z", taken)
            kept.append(keeping(_KEPT + coded) + (line_end[0] if line_end else ""))
        else:
            kept.append(line)
    return "".join(kept)


def bring_back(text: str) -> str:
    """The text with every withdrawn warning where it stood."""
    for comment in (MARKDOWN, HASH):
        note = comment.find(re.escape(_KEPT) + "(?P<coded>[A-Za-z0-9+/=]+)")
        pattern = re.compile(rf"^{note}(?:\r?\n|\Z)", re.MULTILINE)
        text = pattern.sub(lambda found: base64.b64decode(found["coded"]).decode("utf-8", "surrogateescape"), text)
    return text


def documented(text: str | None, body: str, comment: Comment) -> str:
    """A file's text as it should be after a verified success."""
    return with_block(None if text is None else withdraw(text, comment), body, comment)


def undocumented(text: str, comment: Comment) -> str | None:
    """A file's text as it was before; None where there was no file."""
    left = without_block(text, comment)
    return None if left is None else bring_back(left)
