# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import clone, inventory
from made_environment import SITE, make_environment


def cloned(tmp_path: Path, prepare: str = "") -> tuple[Path, Path]:
    tree = make_environment(tmp_path / "an environment ü")
    if prepare:
        (tree / prepare).parent.mkdir(parents=True, exist_ok=True)
        (tree / prepare).write_text("x")
    entries = inventory.take(str(tree))
    copies = clone.must_copy(entries, inventory.recorded(str(tree)))
    clone.make(str(tree), str(tmp_path / "clone"), copies, reflink=False)
    return tree, tmp_path / "clone"


def test_a_clone_has_the_same_inventory(tmp_path: Path) -> None:
    tree, copy = cloned(tmp_path)
    assert inventory.differences(inventory.take(str(tree)), inventory.take(str(copy))) == []
    assert (tree / SITE / "tool/data.bin").stat().st_ino == (copy / SITE / "tool/data.bin").stat().st_ino


@pytest.mark.parametrize(
    "path",
    [
        "pyvenv.cfg",
        "bin/activate",
        "notes.txt",
        f"{SITE}/extra.pth",
        "conda-meta/history",
        "conda-meta/state",
        "etc/conda/activate.d/env_vars.sh",
        f"{SITE}/__editable___mine_finder.py",
        f"{SITE}/sitecustomize.py",
        "bin/python3.11",
        "var/log/service.log",
    ],
)
def test_what_is_written_in_place_does_not_reach_the_other_tree(tmp_path: Path, path: str) -> None:
    tree, copy = cloned(tmp_path, path)
    before = (tree / path).read_text()
    with (copy / path).open("a") as file:
        file.write("more")
    assert (tree / path).read_text() == before


def test_extended_attributes_are_kept(tmp_path: Path) -> None:
    tree = make_environment(tmp_path / "environment")
    try:
        for path in (tree / "notes.txt", tree / SITE / "tool"):
            os.setxattr(path, "user.note", b"kept")
    except OSError:
        pytest.skip("this filesystem has no extended attributes")
    clone.make(str(tree), str(tmp_path / "clone"), ["notes.txt"], reflink=False)
    for path in (tmp_path / "clone/notes.txt", tmp_path / "clone" / SITE / "tool"):
        assert os.getxattr(path, "user.note") == b"kept"


def test_large_files_that_nobody_lists_stay_links() -> None:
    entry = ["f", clone.COPIED_UNLISTED + 1, 0, 0o644, 0, 0, ""]
    assert clone.must_copy({"weights.bin": entry}, {}) == []


@pytest.mark.parametrize(
    ("free", "files", "inodes", "told"),
    [
        (1 << 40, 1 << 20, 1 << 20, None),
        (1 << 40, 0, 0, None),  # btrfs makes inodes as needed
        (1 << 20, 1 << 20, 1 << 20, "free space"),
        (1 << 40, 1 << 20, 100, "free inodes"),
    ],
)
def test_room_is_checked_first(
    monkeypatch: pytest.MonkeyPatch, free: int, files: int, inodes: int, told: str | None
) -> None:
    room = os.statvfs_result((4096, 4096, free >> 12, free >> 12, free >> 12, files, inodes, inodes, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: room)
    said = clone.shortage("/state", {".": ["d", 0, 0, 0o755, 0, 0, ""]}, [])
    assert (said is None) if told is None else (said is not None and told in said)


def test_a_clone_that_fails_says_what_cp_said(tmp_path: Path) -> None:
    with pytest.raises(clone.CloneError, match="No such file"):
        clone.make(str(tmp_path / "none"), str(tmp_path / "clone"), [], reflink=False)


def test_removing_what_is_not_there_is_done(tmp_path: Path) -> None:
    clone.remove(str(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []


def test_removing_leaves_the_modes_of_the_other_tree(tmp_path: Path) -> None:
    tree, copy = cloned(tmp_path)
    (copy / SITE / "tool").chmod(0o500)
    mode = (tree / SITE / "tool/data.bin").stat().st_mode
    clone.remove(str(copy))
    assert not copy.exists()
    assert (tree / SITE / "tool/data.bin").stat().st_mode == mode
