# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A journal that is cut short, garbage, or of a newer version: rebuilt from the trees or refused, never a guess."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import Host, matrix, wait_for

SPOILT = {
    "empty": lambda data: b"",
    "cut short": lambda data: data[: len(data) // 2],
    "garbage": lambda data: bytes(range(256)) * 8,
    "another": lambda data: data.replace(b'"open"', b'"promoted"').replace(b'"promoting"', b'"open"'),
    "newer": lambda data: data.replace(b'"format": 1', b'"format": 99'),
}


@pytest.mark.fault("10 journal cut short, garbage, newer")
@pytest.mark.parametrize(
    ("spoilt", "state", "kind"), matrix(list(SPOILT), ["cloning", "open", "promoted"], ["staged", "in_place"])
)
def test_spoilt_journal(make_host: Callable[..., Host], tally: Any, spoilt: str, state: str, kind: str) -> None:
    host = make_host()
    run = host.start(kind=kind)
    wait_for(host, (state,), run)
    host.kill(run, "everything")
    host.settle(run)
    path = host.state_dir / "journal.json"
    spoilt_data = SPOILT[spoilt](path.read_bytes())
    path.write_bytes(spoilt_data)
    again = host.run(kind=kind)
    if again.rc == 0:
        survived = host.is_result() and host.is_safe()
    else:
        # Refused: what lies on disk must be as it was, the baseline among it.
        kept = [host.environment, *host.state_dir.glob("transactions/*/tree")]
        survived = path.read_bytes() == spoilt_data and any(
            (tree / "notes by hand.txt").read_text() == "no RECORD knows this\n" for tree in kept
        )
        survived = survived and (spoilt == "newer" or (kind == "in_place" and "action: restore" in again.said))
    assert tally.add(survived), again.said
