# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text from hosts and inventories is data: nothing in it may steer a terminal."""

from __future__ import annotations

import re

# C0 and C1 controls but for newline and tab, the marks that turn the direction of writing around, and halves of pairs,
# which no file or database takes: Ansible hands on bytes that are no UTF-8 as such.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


# How much of what a host said is shown of it: the cause, and what became of its baseline.
SENTENCES = 600


def _cut(text: str, limit: int) -> str:
    """Its beginning and its end, where it is longer."""
    if len(text) <= limit:
        return text
    end = max(0, limit - 3) // 2
    return f"{text[: limit - 3 - end]} … {text[len(text) - end :]}"


def _fit(lines: list[str], limit: int, between: str) -> str:
    """Lines cut so that they fit. Each says a thing of its own, so the long ones give way to the short ones."""
    text = between.join(lines)
    left = limit - len(lines) + 1
    if len(text) <= limit or left < 20 * len(lines):
        return _cut(text, limit)
    sizes: dict[int, int] = {}
    for number in sorted(range(len(lines)), key=lambda number: len(lines[number])):
        sizes[number] = min(len(lines[number]), left // (len(lines) - len(sizes)))
        left -= sizes[number]
    return between.join(_cut(line, sizes[number]) for number, line in enumerate(lines))


def _printable(value: object) -> str:
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(value))


def plain(value: object, limit: int = 2000) -> str:
    """A value as text without control characters, cut to a length that a report can hold."""
    return _fit(_printable(value).split("\n"), limit, "\n")


def one_line(value: object, limit: int = 300) -> str:
    lines = [" ".join(line.split()) for line in _printable(value).split("\n")]
    return _fit([line for line in lines if line], limit, " ")


def duration(seconds: float) -> str:
    """3723 is `1 h 2 min`, 75 is `1 min 15 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"
