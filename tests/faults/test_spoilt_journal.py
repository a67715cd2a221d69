# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A journal cut short, garbage, of another environment or a newer version: rebuilt or refused, never a guess."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oracle
import pytest
from harness import Host, matrix


def changed(data: bytes, before: bytes, after: bytes) -> bytes:
    assert data.count(before) == 1
    return data.replace(before, after)


def other_checksum(data: bytes) -> bytes:
    checksum = json.loads(data)["sha256"]
    return changed(data, checksum.encode(), (checksum[1:] + "0").encode())


def other_state(data: bytes) -> bytes:
    state = json.loads(data)["body"]["transaction"]["state"]
    return changed(data, f'"state": "{state}"'.encode(), b'"state": "discarded"')


SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    **{f"cut at {share} %": lambda data, share=share: data[: len(data) * share // 100] for share in range(10, 100, 10)},
    "garbage": lambda data: bytes(range(256)) * 8,
    "no journal": lambda data: b"[1, 2, 3]",
    "other checksum": other_checksum,
    "other state": other_state,
    "newer": lambda data: changed(data, b'"format": 1', b'"format": 99'),
}
OTHERS = ("another's, open", "another's, ended")  # sound journals, of another environment
NAMED = {
    "no journal": "it is no journal",
    "other checksum": "its checksum is wrong",
    "other state": "its checksum is wrong",
    "newer": "written by a newer version",
    **dict.fromkeys(OTHERS, "another environment"),
}


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory, uv: str, cache: Path) -> dict[str, bytes]:
    """Journals of another environment, one of a run that was killed and one of a run that ended well."""
    host = Host(tmp_path_factory.mktemp("other") / "other", uv, cache)
    run, _stopped = host.held("open")
    host.kill(run, "everything")
    host.settle(run)
    found = {OTHERS[0]: host.journal_path.read_bytes()}
    assert host.run().rc == 0
    return {**found, OTHERS[1]: host.journal_path.read_bytes()}


def is_kept(host: Host) -> bool:
    """Whether the baseline is there byte for byte, at the environment's path or beside it."""
    return any(oracle.tree(str(tree)) == host.before for tree in [host.environment, *host.kept()])


def is_brought_back(host: Host, said: str) -> bool:
    """Do by hand what a refusal asks for, and see the baseline."""
    told = " ".join(said.split())
    named = re.search(r"put (?:it|that baseline) back(?: with|:) action: restore, baseline: (\S+Z-\w+)", told)
    if not named:
        return False
    done = host.by_hand(f"action=restore baseline={named[1]}")
    return done.rc == 0 and host.is_baseline() and host.is_safe()


@pytest.mark.fault("10 journal cut short, garbage, another's, newer")
@pytest.mark.parametrize(
    ("spoilt", "state", "kind"),
    matrix([*SPOILT, *OTHERS], ["freezing", "cloning", "open", "promoting", "promoted"], ["staged", "in_place"]),
)
def test_spoilt_journal(
    make_host: Callable[..., Host], others: dict[str, bytes], tally: Any, spoilt: str, state: str, kind: str
) -> None:
    host = make_host()
    run, _stopped = host.held(state, kind=kind)
    host.kill(run, "everything")
    host.settle(run)
    whole = host.journal_path.read_bytes()
    data = others[spoilt] if spoilt in others else SPOILT[spoilt](whole)
    assert data != whole
    # A promotion is noted beside the baseline just before the journal says so: whoever stops in between finds both.
    decided = any(
        json.loads(meta.read_bytes()).get("promoted") for meta in host.state_dir.glob("transactions/*/meta.json")
    )
    host.journal_path.write_bytes(data)
    again = host.run(kind=kind)
    survived = NAMED.get(spoilt, "it is no JSON") in " ".join(again.said.split()) and is_kept(host)
    said = [spoilt, again.said]
    if spoilt == "newer":
        survived = survived and again.rc != 0 and host.journal_path.read_bytes() == data
        host.journal_path.write_bytes(whole)  # what the newer version would have made of it
    elif kind == "in_place" and state in ("open", "promoting") and not decided:
        # Whether the work had ended cannot be told from the trees.
        survived = survived and again.rc != 0 and host.journal_path.read_bytes() == data
        survived = survived and is_brought_back(host, again.said)
    else:
        unreadable = [path.read_bytes() for path in host.state_dir.glob("journal.json.unreadable-*")]
        survived = survived and again.rc == 0 and unreadable == [data]
    if again.rc != 0:
        again = host.run(kind=kind)
    survived = survived and again.rc == 0 and host.is_result() and host.is_safe()
    assert tally.add(survived), [*said, again.said, host.wrong()]
