# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's evidence is text of somebody else: without its form it is not believed, and gets into no extra variable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import report_folder

from ocrfleet import evidence

HASH = "--hash=sha256:992017d193dfbbc62e67401a6d5416629bf90b640872d14b7863de45e9371446"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        (f"torch==2.8.0+cu128 \\\n    {HASH} \\\n    {HASH}\nnumpy==1.0\n", True),
        (f"# made by hand\ntorch[cuda]==2.8.0 ; python_version >= '3.11' {HASH}\n    # via vllm\n", True),
        ("--index-url http://elsewhere\n", False),
        ("torch==2.8.0 --index-url=http://elsewhere\n", False),
        ("torch==2.8.0 ; --index-url=http://elsewhere\n", False),
        ("torch @ http://elsewhere/torch.whl\n", False),
        ("-r /etc/passwd\n", False),
        ("# a comment \\\n-r /etc/passwd\n", False),
        ("# a comment\r-r /etc/passwd\n", False),
        ("/srv/torch.whl\n", False),
        ("torch>=2.8\n", False),
        ("torch=={{ lookup('pipe', 'id') }}\n", False),
        ("x==1" + "0" * 3000, False),
    ],
)
def test_a_lock_holds_pins_and_hashes_and_nothing_else(text: str, expected: bool) -> None:
    assert evidence.is_lock(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20261126T080342.066178Z-dd9b", True),
        ("", False),
        ("a b", False),
        ("a\n", False),
        ("{{ lookup('pipe', 'id') }}", False),
        ("../x", False),
        (["a"], False),
        (None, False),
    ],
)
def test_a_baseline_is_a_name(text: object, expected: bool) -> None:
    assert evidence.is_baseline(text) is expected


@pytest.mark.parametrize(
    ("told", "believed"),
    [
        ({}, True),
        ({"transaction": {"proof": {"equal": True}}, "checks": [{}], "versions": {}, "lock": "", "finished": ""}, True),
        ({"host": "another"}, False),
        ({"transaction": None}, False),
        ({"transaction": {"proof": None}}, False),
        ({"lock": None}, False),
        ({"finished": 1}, False),
        ({"checks": ["passed"]}, False),
        ({"versions": []}, False),
    ],
)
def test_evidence_without_the_form_is_none(tmp_path: Path, told: dict[str, Any], believed: bool) -> None:
    folder = tmp_path / report_folder.name("h:1")
    folder.mkdir()
    (folder / "evidence.json").write_text(json.dumps({"host": "h:1", "result": "verified", **told}))
    assert bool(evidence.read(tmp_path, "h:1")) is believed


@pytest.mark.parametrize("host", ["gpu-01.example", "h:1", "h_1", "fe80::1%eth0", "größe", "a/../b", "...", "-x"])
def test_a_report_is_looked_for_where_the_role_writes_it(tmp_path: Path, host: str) -> None:
    folder = tmp_path / "reports" / report_folder.name(host)
    folder.mkdir(parents=True)
    (folder / "evidence.json").write_text(json.dumps({"host": host}))
    assert evidence.read(tmp_path / "reports", host)


@pytest.mark.parametrize("host", [".", ".."])
def test_nothing_is_read_outside_of_the_reports(tmp_path: Path, host: str) -> None:
    (tmp_path / "reports").mkdir()
    for place in (tmp_path, tmp_path / "reports"):
        (place / "evidence.json").write_text(json.dumps({"host": host}))
    assert evidence.read(tmp_path / "reports", host) == {}


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    """A page in UTF-8 and a database could not be written with them."""
    folder = tmp_path / "h1"
    folder.mkdir()
    (folder / "evidence.json").write_text('{"host": "h1", "checks": [{"title": "caf\\udce9 \\ud83d\\ude00"}]}')
    (check,) = evidence.read(tmp_path, "h1")["checks"]
    assert check["title"] == "caf? \U0001f600"
