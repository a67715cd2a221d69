# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of methods share: the judge of the fault suite, the stand-ins, and hosts that cost nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / name) for name in ("faults", "stand_ins", "offline")]

from light_hosts import LightHosts  # noqa: E402 - found through the path above


@pytest.fixture(scope="module")
def make_hosts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], LightHosts]:
    return lambda: LightHosts(tmp_path_factory.mktemp("hosts"))
