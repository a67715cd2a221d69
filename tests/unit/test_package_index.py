# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which index uv asks on a host, and what is said where it does not answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import package_index
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.package_index import Index
from stand_in_server import serving

DEAD = "http://ann:secret@127.0.0.1:9/simple"
MIRROR = "https://mirror.invalid/simple"


@pytest.mark.parametrize(
    ("named", "environ", "file", "url", "told"),
    [
        (MIRROR, {"UV_DEFAULT_INDEX": DEAD}, "", MIRROR, MIRROR),
        ("", {"UV_DEFAULT_INDEX": DEAD}, "home/.config", DEAD, "http://127.0.0.1:9/simple (UV_DEFAULT_INDEX)"),
        ("", {"UV_INDEX_URL": MIRROR, "UV_DEFAULT_INDEX": ""}, "", MIRROR, f"{MIRROR} (UV_INDEX_URL)"),
        ("", {}, "", "", "uv's default"),
        ("", {}, "home/.config", "", "what FOLDER/home/.config/uv/uv.toml says"),
        ("", {"XDG_CONFIG_HOME": "FOLDER/own"}, "own", "", "what FOLDER/own/uv/uv.toml says"),
        ("", {}, "etc", "", "what FOLDER/etc/uv/uv.toml says"),
    ],
)
def test_the_index_in_effect(
    tmp_path: Path, named: str, environ: dict[str, str], file: str, url: str, told: str
) -> None:
    if file:
        (tmp_path / file / "uv").mkdir(parents=True)
        (tmp_path / file / "uv/uv.toml").write_text("")
    given = {name: value.replace("FOLDER", str(tmp_path)) for name, value in environ.items()}
    index = package_index.in_effect(
        {"default_index": named}, {"HOME": str(tmp_path / "home"), **given}, etc=str(tmp_path / "etc")
    )
    assert index.url == url
    assert index.told() == told.replace("FOLDER", str(tmp_path))


@pytest.mark.parametrize(
    ("named_by", "says"),
    [
        ("stack_default_index", "from http://127.0.0.1:9/simple, found none .*refused.*or correct stack_default_index"),
        ("UV_DEFAULT_INDEX", r"simple \(UV_DEFAULT_INDEX\), found none .*name a mirror by stack_default_index"),
    ],
)
def test_an_index_that_does_not_answer_is_told_with_what_names_it(named_by: str, says: str) -> None:
    said = package_index.unreachable(Index(DEAD, named_by))
    assert re.search(says, said)
    assert "secret" not in said


def test_an_index_that_answers_is_no_problem_whatever_it_has() -> None:
    with serving("ok") as server:
        assert (
            package_index.unreachable(Index(f"http://127.0.0.1:{server.server_port}/simple", "stack_default_index"))
            == ""
        )


def test_what_is_not_asked() -> None:
    assert package_index.unreachable(Index("", "uv's default")) == ""
    assert package_index.unreachable(Index("file:///srv/simple", "UV_DEFAULT_INDEX")) == ""
