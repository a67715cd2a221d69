# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the operator's documents write comments, in which this collection keeps what it needs for the way back."""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME = "ocrfleet.gpu_stack"


class Spoilt(Exception):
    """A comment of this collection that is not as it was written: somebody edited it."""


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
