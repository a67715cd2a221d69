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


def opens(windows: list[dict[str, Any]], now: datetime) -> datetime:
    """`now` where one of the windows is open or there are none, else the moment when the next one opens."""
    spans = [span for window in windows for span in _spans(window, now)]
    if not windows or any(begin <= now < end for begin, end in spans):
        return now
    return min(begin for begin, _end in spans if begin > now)
