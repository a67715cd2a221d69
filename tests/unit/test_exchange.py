# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import exchange


def test_folders_change_places_and_keep_their_inodes(tmp_path: Path) -> None:
    first, second = tmp_path / "one tree", tmp_path / "zwei-ü"
    for folder in (first, second):
        folder.mkdir()
        (folder / folder.name).touch()
    before = os.stat(first).st_ino, os.stat(second).st_ino

    exchange.exchange(str(first), str(second))

    assert (os.stat(second).st_ino, os.stat(first).st_ino) == before
    assert [path.name for path in first.iterdir()] == ["zwei-ü"]


def test_a_missing_partner_is_an_error_and_moves_nothing(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with pytest.raises(OSError) as raised:
        exchange.exchange(str(tmp_path / "one"), str(tmp_path / "none"))
    assert raised.value.errno == errno.ENOENT
    assert (tmp_path / "one").is_dir()


def test_syncing_needs_a_folder(tmp_path: Path) -> None:
    exchange.sync_filesystem(str(tmp_path))
    exchange.sync_folder(str(tmp_path))
    with pytest.raises(OSError):
        exchange.sync_filesystem(str(tmp_path / "none"))
