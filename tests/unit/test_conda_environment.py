# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module conda_environment, with a stand-in for conda that makes a prefix or fails on the way."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ad_hoc
import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import conda_engines

VERSION = "{}.{}".format(*sys.version_info)
# Writes its arguments down, makes what a prefix is known by, and then does what STAND_IN says.
CONDA = f"""#!/bin/sh
echo "$@" > "$(dirname "$0")/asked"
while [ "$1" != --prefix ]; do shift; done
mkdir -p "$2/conda-meta" "$2/bin"
[ "$STAND_IN" = fails ] && echo "no space left" >&2 && exit 1
echo > "$2/conda-meta/history"
ln -s {sys.executable} "$2/bin/python"
"""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    (tmp_path / "conda").write_text(CONDA)
    (tmp_path / "conda").chmod(0o755)
    return tmp_path


def made(folder: Path, *options: str, stand_in: str = "", **arguments: Any) -> dict:
    given = {"prefix": str(folder / "env"), "executable": str(folder / "conda"), "python": VERSION, **arguments}
    return ad_hoc.run("conda_environment", given, *options, variables={"STAND_IN": stand_in})


def test_it_is_made_once_and_keeps_its_python(host):
    assert [made(host)["changed"], made(host)["changed"]] == [True, False]
    assert (host / "env/conda-meta/pinned").read_text() == f"python {VERSION}.*\n"
    assert not (host / "env/.condarc").exists()


def test_channels_are_its_own(host):
    made(host, channels=["https://mirror.example/a", "b"])
    assert (host / "asked").read_text().split()[-6:-1] == [
        "--override-channels",
        "--channel",
        "https://mirror.example/a",
        "--channel",
        "b",
    ]
    assert (host / "env/.condarc").read_text() == 'channels:\n  - "https://mirror.example/a"\n  - "b"\n'


def test_check_mode_tells_the_command_and_runs_nothing(host):
    found = made(host, "--check")
    assert (found["changed"], found["command"][1]) == (True, "create")
    assert not (host / "asked").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"stand_in": "fails"}, "no space left"),
        ({"python": "2.0"}, f"expected Python 2.0, found {VERSION}"),
    ],
)
def test_a_failure_leaves_nothing_behind(host, given, said):
    found = made(host, **given)
    assert said in found["msg"]
    assert "Nothing was left behind" in found["msg"]
    assert sorted(path.name for path in host.iterdir()) == ["asked", "conda"]


def test_one_that_was_killed_is_made_anew(host):
    (host / "env/bin").mkdir(parents=True)
    (host / f"env{conda_engines.BEGUN}").write_text("begun\n")
    assert made(host)["changed"] is True
    assert not (host / f"env{conda_engines.BEGUN}").exists()


def test_what_is_somebody_elses_is_left_alone(host):
    (host / "env").mkdir()
    (host / "env/notes.txt").write_text("mine")
    assert "found something else" in made(host)["msg"]
    assert (host / "env/notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("executable", "options", "told"),
    [
        ("no-conda-at-all", (), True),
        ("no-conda-at-all", ("--check",), True),
        ("/no/conda", (), True),
        ("/no/conda", ("--check",), False),  # where the role conda would install it
    ],
)
def test_no_conda_is_told_before_anything_is_made(host, executable, options, told):
    found = made(host, *options, executable=executable)
    assert (f"at {executable}, found none" in found.get("msg", "")) is told
    assert sorted(path.name for path in host.iterdir()) == ["conda"]
