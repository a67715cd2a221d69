# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two users on a host: one connects and may write in its own temporary folder, the other does all else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from unittest import mock

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.ocrfleet.gpu_stack.plugins.action import bundle_use, source_wheel


def two_users(plugin: type, home: Path) -> mock.Mock:
    """The plugin's connection, with real commands and files; a transfer goes into the first one's folder alone."""

    def transfer(here: str, there: str) -> None:
        if not Path(there).is_relative_to(home):
            raise AnsibleActionFail(f"failed to transfer file to {there}: Permission denied")
        shutil.copy(here, there)

    def execute(command: str, **_settings: object) -> dict:
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        return {"rc": done.returncode, "stdout": done.stdout, "stderr": done.stderr}

    def make() -> str:
        (home / "tmp").mkdir(parents=True)
        return str(home / "tmp")

    action = mock.Mock(spec=plugin)
    action._connection = mock.Mock()
    action._connection._shell.join_path = lambda *parts: "/".join(parts)
    action._remote_expand_user = lambda path: path
    action._make_tmp_path = make
    action._remove_tmp_path = shutil.rmtree
    action._transfer_file = transfer
    action._low_level_execute_command = execute
    return action


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    (tmp_path / "house/entry").mkdir(parents=True)
    (tmp_path / "house/entry/x.whl").write_text("wheel")
    return tmp_path / "house/entry"


def test_a_wheel_reaches_a_folder_of_the_other_user(tmp_path: Path, entry: Path) -> None:
    action = two_users(source_wheel.ActionModule, tmp_path / "home")
    folder = source_wheel.ActionModule._bring(action, entry, {"wheel": "x.whl"}, str(tmp_path / "root's own/dest"))
    assert [path.read_text() for path in Path(folder).iterdir()] == ["wheel"]
    assert Path(folder) == tmp_path / "root's own/dest/entry"
    assert list((tmp_path / "home").iterdir()) == []


def test_a_bundle_reaches_a_folder_of_the_other_user(tmp_path: Path, entry: Path) -> None:
    action = two_users(bundle_use.ActionModule, tmp_path / "home")
    there = tmp_path / "dest"
    (there / "old").mkdir(parents=True)
    (there / "old/y.whl").touch()
    bundle_use.ActionModule._send(action, str(entry.parent), str(there), ["entry/x.whl"], ["old/y.whl"])
    assert [path for path in there.rglob("*") if path.is_file()] == [there / "entry/x.whl"]
    assert list((tmp_path / "home").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, entry: Path) -> None:
    (tmp_path / "dest").touch()
    action = two_users(source_wheel.ActionModule, tmp_path / "home")
    with pytest.raises(AnsibleActionFail, match="(?s)expected .mkdir -p .*dest/entry.* it ended with 1"):
        source_wheel.ActionModule._bring(action, entry, {"wheel": "x.whl"}, str(tmp_path / "dest"))
