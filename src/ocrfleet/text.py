# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text from hosts and inventories is data: nothing in it may steer a terminal."""

from __future__ import annotations

import re

# C0 and C1 controls but for newline and tab, the marks that turn the direction of writing around, and halves of pairs,
# which no file or database takes: Ansible hands on bytes that are no UTF-8 as such.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(value: object, limit: int = 2000) -> str:
    """A value as text without control characters, cut to a length that a report can hold."""
    text = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(value))
    return text if len(text) <= limit else text[: limit - 2] + " …"


def one_line(value: object, limit: int = 300) -> str:
    return " ".join(plain(value, 10 * limit).split())[:limit]


def duration(seconds: float) -> str:
    """3723 is `1 h 2 min`, 75 is `1 min 15 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"
