# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Maintenance windows: whether one is open, and when the next one opens."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _clock(text: str) -> time:
    hours, minutes = text.split(":")
    return time(int(hours), int(minutes))


def _spans(window: dict[str, Any], now: datetime) -> list[tuple[datetime, datetime]]:
    """The window's openings from yesterday to a week ahead. One that ends before it begins ends the next day."""
    zone = ZoneInfo(window.get("timezone", "UTC"))
    here = now.astimezone(zone)
    begins, ends = _clock(window["from"]), _clock(window["to"])
    spans = []
    for offset in range(-1, 9):
        day = here.date() + timedelta(days=offset)
        if DAYS[day.weekday()] not in window.get("days", DAYS):
            continue
        last = day if ends > begins else day + timedelta(days=1)
        spans.append((datetime.combine(day, begins, zone), datetime.combine(last, ends, zone)))
    return spans


def _merged(spans: list[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """The same times without overlaps: of two windows that meet at midnight one."""
    found: list[tuple[datetime, datetime]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found


def opens(windows: list[dict[str, Any]], now: datetime, minutes: float = 0) -> datetime | None:
    """When one of the windows is open, from then on for `minutes`: `now`, or later, or None within a week.

    Without windows that is `now`.
    """
    if not windows:
        return now
    for begin, end in _merged([span for window in windows for span in _spans(window, now)]):
        start = max(begin, now)
        # Seconds of the world: of times in one zone Python takes the difference of the clocks on the wall.
        if start < end and end.timestamp() - start.timestamp() >= 60 * minutes:
            return start
    return None
