# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module pinned_key: nothing is written whose fingerprints are not the pinned ones."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import ad_hoc
import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import openpgp
from test_openpgp import FIRST, KEYS, SECOND


@pytest.fixture
def keyring(tmp_path: Path) -> Path:
    path = tmp_path / "keys.asc"
    path.write_bytes(KEYS)
    return path


def package(folder: Path, content: dict[str, bytes]) -> Path:
    """A Debian package with these files, as `cuda-keyring` is one."""
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: keyring\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example>\nDescription: keys\n"
    )
    for name, data in content.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, folder / "a.deb"], check=True, timeout=60)
    return folder / "a.deb"


def placed(source: str | Path, dest: Path, *options: str, pinned: tuple[str, ...] = (FIRST, SECOND)) -> dict:
    given = {"source": str(source), "dest": str(dest), "fingerprints": list(pinned)}
    return ad_hoc.run("pinned_key", given, *options)


def test_a_pinned_ring_is_written_once_and_in_binary_for_apt(keyring, tmp_path):
    dest = tmp_path / "ring.gpg"
    first, second = placed(keyring, dest), placed(keyring, dest)
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["fingerprints"] == [FIRST, SECOND]
    assert dest.read_bytes() == openpgp.dearmored(KEYS)


def test_check_mode_holds_it_against_the_pins_and_writes_nothing(keyring, tmp_path):
    assert placed(keyring, tmp_path / "ring.asc", "--check")["changed"] is True
    assert not (tmp_path / "ring.asc").exists()


def test_a_key_that_is_not_pinned_is_refused(keyring, tmp_path):
    said = placed(keyring, tmp_path / "ring.asc", pinned=(FIRST,))["msg"]
    assert f"found {SECOND}" in said
    assert not (tmp_path / "ring.asc").exists()


def test_the_ring_is_taken_out_of_a_package_and_nothing_else_of_it(tmp_path):
    archive = package(tmp_path, {"usr/share/keyrings/a.gpg": openpgp.dearmored(KEYS), "etc/other": b"x"})
    assert placed(archive, tmp_path / "ring.asc")["changed"] is True
    assert (tmp_path / "ring.asc").read_bytes() == openpgp.dearmored(KEYS)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda folder: folder / "none.asc", "found none: No such file or directory"),
        (lambda folder: package(folder, {"etc/other": b"x"}), "the package holds no keyring"),
        (lambda folder: broken(folder), "it is no Debian package"),
    ],
    ids=["missing", "package without", "no package"],
)
def test_what_is_no_keyring_is_told(tmp_path, made, said):
    assert said in placed(made(tmp_path), tmp_path / "ring.asc")["msg"]


def broken(folder: Path) -> Path:
    with tarfile.open(folder / "a.deb", "w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    return folder / "a.deb"
