# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The line that tells how far a long task is on a host. Every worker imports it: it draws nothing."""

from __future__ import annotations

import re

# Controls, and the marks that turn the direction of writing around.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_PROGRESS = re.compile(r"^  (?P<host>\S+): (?P<what>.+) \(\d+ s\)\n?$")


def printable(text: str) -> str:
    """Text from a host, an inventory or a playbook is data: nothing in it may steer the terminal."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def line(host: str, what: str, seconds: float) -> str:
    """The line that tells how far a long task is on a host: `read` knows it again."""
    return printable(f"  {host}: {what} ({seconds:.0f} s)")


def read(text: str) -> tuple[str, str] | None:
    """The host and what it is at, of such a line."""
    found = _PROGRESS.match(text)
    return (found["host"], found["what"]) if found else None
