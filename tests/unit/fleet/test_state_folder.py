# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of all rollouts: what is private in it, and whose folder is taken for one."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ocrfleet import cli, errors, planning, policy
from ocrfleet.state import State
from ocrfleet.store import Store


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def begin(folder: Path) -> State:
    """A rollout of one host there."""
    chosen = policy.complete({})
    waves = planning.waves(["h1"], {}, chosen)
    return State.create(Store(folder).new(), chosen, ["inventory"], planning.Fleet(["h1"], {}), waves)


@pytest.mark.parametrize("given", [0o700, 0o750, 0o755])
def test_a_folder_that_is_given_keeps_its_mode_and_its_rollouts_are_private(tmp_path: Path, given: int) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    folder.chmod(given)
    state = begin(folder)
    with Store(folder).driver("rollout"):
        pass
    assert mode(folder) == given
    assert (mode(folder / "rollouts"), mode(state.folder)) == (0o700, 0o700)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"state.db", "driver.lock"}
    assert {path.name: mode(path) for path in files} == {path.name: 0o600 for path in files}


def test_a_folder_that_it_makes_is_private(tmp_path: Path) -> None:
    begin(tmp_path / "above" / "made")
    assert mode(tmp_path / "above" / "made") == 0o700


@pytest.mark.parametrize("command", [["status"], ["status", "--all"], ["resume"], ["report"]])
def test_where_nothing_is_nothing_is_written(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.main(["--state-dir", str(tmp_path / "none"), *command])
    assert code == (errors.DONE if "--all" in command else errors.WRONG_INPUT)
    assert list(tmp_path.iterdir()) == []
    assert "begin one with `ocrfleet rollout`" in capsys.readouterr().err or "--all" in command


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("given", [0o1777, 0o770, 0o702])
def test_a_folder_that_others_may_write_to_is_refused_and_left(
    tmp_path: Path, given: int, inner: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "given"
    place = folder / "rollouts" if inner else folder
    place.mkdir(parents=True)
    place.chmod(given)
    code = cli.main(["--state-dir", str(folder), "status", "--all"])
    err = capsys.readouterr().err
    assert (code, mode(place)) == (errors.WRONG_INPUT, given)
    assert f"expected a folder that only you may write to, found {place} with mode {given:04o}" in err
    assert "--state-dir" in err and "chmod go-w" in err


def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert cli.main(["--state-dir", str(tmp_path), "status", "--all"]) == errors.WRONG_INPUT
    assert f"expected a folder of your own, found {tmp_path}, which belongs to " in capsys.readouterr().err


def test_a_file_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert cli.main(["--state-dir", str(tmp_path / "file"), "status"]) == errors.WRONG_INPUT
    assert f"expected a folder, found a file at {tmp_path / 'file'}" in capsys.readouterr().err


def test_the_locks_of_a_rollout_are_private(make: Any, drive: Any) -> None:
    state = make(2, waves=[1, 1])
    assert drive(state) == errors.DONE
    [lock] = (state.folder / "locks").iterdir()
    assert mode(lock) == 0o600
