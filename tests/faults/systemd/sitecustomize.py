# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shorten, in the processes of a host with a service, the fifteen seconds that a restarted service is watched.

They would be most of the suite's time; that they are waited for is in tests/unit/test_services.py.
"""

from __future__ import annotations

import time

WATCHED = 15.0  # STEADY of the module utility services
_sleep = time.sleep
time.sleep = lambda seconds: _sleep(0.1 if seconds == WATCHED else seconds)
