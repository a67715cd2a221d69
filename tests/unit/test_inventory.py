# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import distributions, inventory
from made_environment import SITE, make_environment


def rewrite_in_place(tree: Path) -> None:
    path = tree / SITE / "tool/data.bin"
    status = path.stat()
    path.write_text("DATA\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 5))


def compile_another(tree: Path) -> None:
    (tree / SITE / "torch/__pycache__").mkdir()
    (tree / SITE / "torch/__pycache__/__init__.cpython-311.pyc").write_bytes(b"new")
    (tree / SITE / "tool/__pycache__/__init__.cpython-311.pyc").write_bytes(b"other")


def point_elsewhere(tree: Path) -> None:
    status = (tree / "bin").stat()
    (tree / "bin/python").unlink()
    (tree / "bin/python").symlink_to("/usr/bin/python9")
    os.utime(tree / "bin", ns=(status.st_atime_ns, status.st_mtime_ns))


def leave_a_trace(tree: Path) -> None:
    (tree / "bin/scratch").touch()
    (tree / "bin/scratch").unlink()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tree: None, []),
        (compile_another, []),
        (rewrite_in_place, [(f"{SITE}/tool/data.bin", "mtime")]),
        (lambda tree: (tree / "notes.txt").chmod(0o600), [("notes.txt", "mode 0600, was 0644")]),
        (
            lambda tree: (tree / SITE / "tool/data.bin").unlink(),
            [(f"{SITE}/tool", "mtime"), (f"{SITE}/tool/data.bin", "missing")],
        ),
        (lambda tree: (tree / "new").touch(), [(".", "mtime"), ("new", "was not there")]),
        (point_elsewhere, [("bin/python", "link target /usr/bin/python9, was /usr/bin/python3")]),
        (leave_a_trace, [("bin", "mtime")]),
    ],
)
def test_what_changed_is_told_and_caches_are_not(
    tmp_path: Path, change: Callable[[Path], object], told: list[tuple[str, str]]
) -> None:
    tree = make_environment(tmp_path / "environment")
    before = inventory.load(inventory.dump(inventory.take(str(tree))))
    change(tree)
    found = inventory.differences(before, inventory.take(str(tree)))
    assert [line.split(": ")[0] for line in found] == [path for path, _ in told]
    assert all(expected in line for line, (_, expected) in zip(found, told))


def test_a_name_that_is_no_utf8_survives(tmp_path: Path) -> None:
    tree = make_environment(tmp_path / "environment")
    (tree / os.fsdecode(b"na\xefve")).touch()
    entries = inventory.take(str(tree))
    assert inventory.load(inventory.dump(entries)) == entries


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"a": 1}', b'{"a": [1, 2]}'])
def test_a_garbled_inventory_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        inventory.load(data)


def test_contents_are_held_against_the_recorded_hash(tmp_path: Path) -> None:
    tree = make_environment(tmp_path / "environment")
    hashes = inventory.recorded(str(tree))
    assert inventory.wrong_contents(str(tree), hashes) == []
    status = (tree / SITE / "tool/data.bin").stat()
    (tree / SITE / "tool/data.bin").write_text("DATA\n")  # the size stays
    os.utime(tree / SITE / "tool/data.bin", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert inventory.wrong_contents(str(tree), hashes) == [
        f"{SITE}/tool/data.bin: its contents are not those of its RECORD"
    ]
    assert inventory.owners(str(tree), [f"{SITE}/tool/data.bin"]) == ["tool"]


def test_conda_manifests_list_files_too(tmp_path: Path) -> None:
    tree = make_environment(tmp_path / "environment")
    (tree / "conda-meta").mkdir()
    (tree / "conda-meta/zlib-1.json").write_text('{"files": ["lib/libz.so"]}')
    (tree / "conda-meta/broken.json").write_text("{")
    assert "lib/libz.so" in inventory.recorded(str(tree))


@pytest.mark.parametrize(("installer", "damaged"), [("conda", False), ("uv", True)])
def test_a_console_script_that_conda_wrote_anew_is_no_damage(tmp_path: Path, installer: str, damaged: bool) -> None:
    tree = make_environment(tmp_path / "environment")
    (tree / "bin/tool").write_text("longer than recorded")
    info = tree / SITE / "tool-1.0.dist-info"
    with (info / "RECORD").open("a") as record:
        record.write("../../../bin/tool,sha256=x,3\n")
    (info / "INSTALLER").write_text(f"{installer}\n")
    with (info / "RECORD").open() as record:
        rows = record.read().replace("INSTALLER,", "REMOVED,").splitlines()
    (info / "RECORD").write_text("\n".join(row for row in rows if "REMOVED" not in row) + "\n")
    found = distributions.damaged(str(tree))
    assert bool(found) == damaged


def broken(*_arguments: object) -> None:
    raise OSError("no memory")


@pytest.mark.parametrize("spoil", [None, "dump", "fork"])
def test_a_large_tree_is_whole_whoever_walks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str | None
) -> None:
    """Two processes share it. Where the second comes to nothing, the first walks all of it."""
    for number in range(inventory.SHARED_FROM + 3):
        (tmp_path / f"{number}/deep").mkdir(parents=True)
        (tmp_path / f"{number}/deep/file").write_text(str(number))
    expected = {"."}
    for folder, folders, files in os.walk(tmp_path):
        expected |= {os.path.relpath(os.path.join(folder, name), tmp_path) for name in folders + files}
    if spoil == "dump":
        monkeypatch.setattr(inventory, "dump", broken)
    if spoil == "fork":
        monkeypatch.setattr(inventory.os, "fork", broken)
    found = inventory.take(str(tmp_path))
    assert found.keys() == expected
    assert all(found[path] == inventory._entry(str(tmp_path / path), os.lstat(tmp_path / path)) for path in expected)


def test_a_folder_of_a_large_tree_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    for number in range(inventory.SHARED_FROM + 3):
        (tmp_path / f"{number}/deep").mkdir(parents=True)
    original = os.scandir

    def scandir(path):
        if str(path).endswith("/deep/"):
            raise PermissionError(13, "Permission denied", path)
        return original(path)

    monkeypatch.setattr(inventory.os, "scandir", scandir)
    with pytest.raises(PermissionError, match="deep"):
        inventory.take(str(tmp_path))


def test_the_fingerprint_is_of_what_is_compared(tmp_path: Path) -> None:
    tree = make_environment(tmp_path / "env")
    before = inventory.fingerprint(str(tree))
    (tree / ".lock").touch()
    (tree / SITE / "tool" / "__pycache__" / "data.cpython-311.pyc").write_bytes(b"x")
    assert inventory.fingerprint(str(tree)) == before
    (tree / SITE / "tool" / "__init__.py").write_text("one = 2\n")
    assert inventory.fingerprint(str(tree)) != before


def entry(kind: str = "f", mode: int = 0o644, mtime: int = 1) -> list:
    return [kind, 1, mtime, mode, 0, 0, ""]


def test_every_path_that_is_not_as_it_was_is_told() -> None:
    """What is as it was, in a cache, missing or explained by a cache does not end the comparison."""
    expected = {
        ".": entry("d"),
        "__pycache__/x.pyc": entry(),
        "a": entry(),
        "b": entry(),
        "c": entry("d"),
        "d": entry("d"),
        "e": entry(),
        "f: g": entry(),
        "h/__pycache__": entry("d"),
    }
    found = {
        ".": entry("d"),
        "a": entry(),
        "c": entry("d", mtime=2),
        "c/__pycache__": entry("d"),
        "d": entry("d", mtime=2),
        "e": entry("l", 0o600, 3),
        "f: g": entry("p"),
        "i": entry(),
        "h/__pycache__": entry("d", 0o700),
    }
    assert inventory.differences(expected, found) == [
        "b: missing",
        "d: mtime 2 ns, was 1 ns",
        "e: type link, was file; mtime 3 ns, was 1 ns; mode 0600, was 0644",
        "f: g: type special file, was file",
        "i: was not there",
    ]
    assert inventory.differences({".": entry("d")}, {".": entry("d", mtime=2), "__pycache__": entry("d")}) == []


def test_every_content_is_held_and_what_has_no_hash_is_not(tmp_path: Path) -> None:
    right = "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(b"right").digest()).rstrip(b"=").decode()
    for name in ("b", "d", "e", "f"):
        (tmp_path / name).write_bytes(b"right" if name in "be" else b"wrong")
    hashes = {"a": "", "b": right, "c": right, "d": right, "e": "magic=x", "f": right, "__pycache__/g": right}
    assert inventory.wrong_contents(str(tmp_path), hashes) == [
        "c: no such file or directory",
        "d: its contents are not those of its RECORD",
        "f: its contents are not those of its RECORD",
    ]
