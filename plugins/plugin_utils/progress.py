# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The line that tells how far a long task is on a host. Every worker imports it: it draws nothing."""

from __future__ import annotations

import re

_PROGRESS = re.compile(r"^  (?P<host>\S+): (?P<what>.+) \(\d+ s\)\n?$")


def line(host: str, what: str, seconds: float) -> str:
    """The line that tells how far a long task is on a host: `read` knows it again."""
    return f"  {host}: {what} ({seconds:.0f} s)"


def read(text: str) -> tuple[str, str] | None:
    """The host and what it is at, of such a line."""
    found = _PROGRESS.match(text)
    return (found["host"], found["what"]) if found else None
