# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of more than one file."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import staging
from transaction_bench import Bench, Services


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whether this machine gives mount namespaces does not matter here: nothing runs in one.
    monkeypatch.setattr(staging, "unavailable", lambda timeout=20: None)


@pytest.fixture
def bench(tmp_path: Path, namespace: None) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def restarts(monkeypatch: pytest.MonkeyPatch) -> Services:
    return Services(monkeypatch)
